"""Runs a program of `programs/` as a real process, for the tests of server and commands."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from chassis.testing.processes import end_with_parent

PROGRAMS = Path(__file__).parent / "programs"
START_SECONDS = 90.0


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a program: this one, the programs on the path, and `extra`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DEMO_")}
    kept.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return {**kept, "PYTHONPATH": str(PROGRAMS), **extra}


class Process:
    """A running `python -m chassis serve demo` on a free port."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.port = 0
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.raw.append(line.decode())
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                continue

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines whose event begins with `name`."""
        return [line for line in self.lines if str(line.get("event", "")).startswith(name)]

    async def wait_for(self, name: str) -> dict[str, Any]:
        """Wait until a log line begins with `name`; return it."""
        async with asyncio.timeout(START_SECONDS):
            while not (found := self.events(name)):
                assert not self.reader.done(), "".join(self.raw)
                await asyncio.sleep(0.01)
        return found[0]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self, seconds: float = 60.0) -> int:
        """Wait for the end; return the exit code, with all lines read."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
            await self.reader
        return code


@asynccontextmanager
async def serving(**settings: str) -> AsyncIterator[Process]:
    """Serve the demo with these `DEMO_` settings; it is killed if the block leaves it running."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chassis", "serve", "demo",
        env=environment(**{f"DEMO_{key.upper()}": value for key, value in settings.items()}),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        preexec_fn=end_with_parent(),
    )  # fmt: skip
    process = Process(child)
    try:
        line = await process.wait_for("listening on")
        process.port = int(str(line["event"]).rpartition(" ")[2])
        await process.wait_for("Application startup complete")
        yield process
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        await process.reader


async def in_flight(port: int, number: int = 1) -> None:
    """Wait until the server says that it serves this many requests (and this one is not one)."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            async with Client(port) as connection:
                _, text = await connection.get("/metrics")
            if f'http_requests_in_flight{{method="GET"}} {float(number)}\n'.encode() in text:
                return


class Client:
    """One keep-alive connection that speaks plain HTTP/1.1, so that nothing is retried."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.closing = False

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            EOFError: the server closed before it answered.
        """
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        self.closing = "connection: close" in lines
        length = next(int(line[16:]) for line in lines if line.startswith("content-length: "))
        return int(lines[0].split()[1]), await self.reader.readexactly(length)
