"""`make bench-stream`: one process of stream against the broadcast loop of the common tutorial.

Both hold the same clients, in one process each; rounds are interleaved, so that the noise of the
machine falls on both alike, and each round gives one paired ratio. Then one client that never reads
joins the room. The clients are raw protocols that count frames in this process. It asserts nothing.

    python -m tests.load.stream_bench [--clients 500] [--messages 200] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from chassis.testing.issuer import TestIssuer
from scripts.local.ports import pick_free
from tests.load.bench import cpu_seconds

HERE = Path(__file__).parent
BATCH = 50
FEW = 10
"""Clients that stay for the part with the stalled one: its buffers fill sooner."""

START_SECONDS = 180.0
FILL_SECONDS, WINDOW_SECONDS = 20.0, 5.0
ROUND_SECONDS = 60.0
PING, PONG = 0x89, 0x8A
_SHORT = 126
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Room:
    """The clients of one server and how many messages they got."""

    def __init__(self) -> None:
        self.received = 0
        self.wanted = 0
        self.done = asyncio.Event()

    def count(self, frames: int) -> None:
        """Note frames."""
        self.received += frames
        if self.received >= self.wanted:
            self.done.set()


class Listener(asyncio.Protocol):
    """A WebSocket client that subscribes, and counts text frames of events."""

    def __init__(self, room: Room, head: bytes, first: bytes) -> None:
        self._room = room
        self._head = head
        self._first = first
        self._buffer = b""
        self._open = False
        self.transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Count."""
        data = self._buffer + data
        if not self._open:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._buffer = head
                return
            self._upgraded(head)
        at, events = 0, 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == _SHORT:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            if len(data) < start + size:
                break
            events += self._frame(data[at], data[start : start + size])
            at = start + size
        self._buffer = data[at:]
        if events:
            self._room.count(events)

    def _upgraded(self, head: bytes) -> None:
        assert b" 101 " in head, head
        assert self.transport is not None
        self._open = True
        if self._first:
            self.transport.write(self._first)
        else:
            self.ready.set_result(None)

    def _frame(self, kind: int, text: bytes) -> int:
        """Return 1 for an event, 0 for anything else."""
        if kind == PING and self.transport is not None:
            self.transport.write(bytes([PONG, 0x80 | len(text), 0, 0, 0, 0]) + text)
        elif text.startswith(b'{"type":"subscri') and not self.ready.done():
            self.ready.set_result(None)
        return int(text.startswith((b'{"type":"event"', b'{"type": "event"')))


@dataclass
class Server:
    """One server under load and what was measured of it."""

    name: str
    process: subprocess.Popen[str]
    port: int
    token: str
    first: bytes
    room: Room = field(default_factory=Room)
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    kilobytes: float = 0.0
    few: float = 0.0
    stalled: float = 0.0
    listeners: list[Listener] = field(default_factory=list)

    @property
    def head(self) -> bytes:
        """The request for the upgrade."""
        return (
            f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    def memory(self) -> int:
        """Resident bytes of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    async def fill(self, clients: int) -> None:
        """Connect the clients; note the memory that each costs."""
        before = self.memory()
        loop = asyncio.get_running_loop()
        for begin in range(0, clients, 50):
            made = await asyncio.gather(
                *(
                    loop.create_connection(
                        lambda: Listener(self.room, self.head, self.first), "127.0.0.1", self.port
                    )
                    for _ in range(begin, min(begin + 50, clients))
                )
            )
            self.listeners += [listener for _, listener in made]
            await asyncio.gather(*(listener.ready for _, listener in made))
        self.kilobytes = (self.memory() - before) / clients / 1024

    async def publish(self, client: httpx2.AsyncClient, messages: int) -> None:
        """Have messages sent to everybody."""
        reading = {"value": 21.5, "unit": "Cel", "at": "2026-05-04T12:00:00Z"}
        for begin in range(0, messages, BATCH):
            body = {"readings": [reading] * min(BATCH, messages - begin)}
            answer = await client.post(
                f"http://127.0.0.1:{self.port}/v1/sensors/a/readings",
                json=body,
                headers={"Authorization": f"Bearer {self.token}"},
            )
            assert answer.status_code == 202, answer.text

    async def round(self, client: httpx2.AsyncClient, messages: int, clients: int) -> None:
        """Deliver messages to all clients; note rate and CPU time."""
        room = self.room
        room.done.clear()
        room.wanted = room.received + messages * clients
        cpu, began = cpu_seconds([self.process.pid]), time.perf_counter()
        await self.publish(client, messages)
        async with asyncio.timeout(ROUND_SECONDS):
            await room.done.wait()
        self.rates.append(messages * clients / (time.perf_counter() - began))
        used = cpu_seconds([self.process.pid]) - cpu
        self.costs.append(used / (messages * clients) * 1e6)

    async def stall(self, client: httpx2.AsyncClient, messages: int) -> None:
        """Let one client join that never reads; note what a few others get before and after."""
        for listener in self.listeners[FEW:]:
            if listener.transport is not None:
                listener.transport.abort()
        await asyncio.sleep(1)
        self.few = await self._rate(client, messages, fill=1.0)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", self.port))
        await loop.sock_sendall(raw, self.head)
        await loop.sock_recv(raw, 64)
        if self.first:
            await loop.sock_sendall(raw, self.first)
        self.stalled = await self._rate(client, messages, fill=FILL_SECONDS)
        raw.close()

    async def _rate(self, client: httpx2.AsyncClient, messages: int, *, fill: float) -> float:
        """Publish without a pause; return the deliveries a second in a window after `fill`."""

        async def publish() -> None:
            while True:
                await self.publish(client, messages)

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(fill)
        before, began = self.room.received, time.perf_counter()
        await asyncio.sleep(WINDOW_SECONDS)
        rate = (self.room.received - before) / (time.perf_counter() - began)
        if publishing.done():
            publishing.result()  # it says why
        publishing.cancel()
        await asyncio.wait([publishing])
        return rate


@contextlib.contextmanager
def servers(issuer: TestIssuer) -> Iterator[list[Server]]:
    """Start both."""
    token = issuer.token("bench", "stream:read sensors:write", expires_in=3600)
    [port] = pick_free(1)
    environment = {
        **os.environ,
        "STREAM_PORT": str(port),
        "STREAM_ISSUER": issuer.issuer,
        "STREAM_AUTH_URL": issuer.url,
        "STREAM_CONNECTIONS": "100000",
        "STREAM_CONNECTIONS_PER_USER": "100000",
        "STREAM_LOG_LEVEL": "error",
    }
    quiet = {"stdout": subprocess.DEVNULL, "text": True}
    stream = subprocess.Popen(
        [sys.executable, "-m", "chassis", "serve", "stream"], env=environment, **quiet
    )
    loop_ = subprocess.Popen(
        [sys.executable, str(HERE / "stream_targets.py")], stderr=subprocess.PIPE, **quiet
    )
    assert loop_.stderr is not None
    text = json.dumps({"type": "subscribe", "topics": ["sensors/a"]}).encode()
    first = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
    try:
        found = [
            Server("tutorial", loop_, int(loop_.stderr.readline()), token, b""),
            Server("stream", stream, port, token, first),
        ]
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(httpx2.TransportError):
                answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
                if answer.status_code == 200:
                    break
            time.sleep(0.1)
        yield found
    finally:
        for process in (stream, loop_):
            process.send_signal(signal.SIGKILL)
            process.wait()


async def measure(found: list[Server], clients: int, messages: int, rounds: int) -> None:
    """Fill both rooms, run the rounds, let the stalled client in."""
    async with httpx2.AsyncClient(trust_env=False, timeout=ROUND_SECONDS) as client:
        for server in found:
            await server.publish(client, BATCH)  # warm: modules, keys, caches
            await server.fill(clients)
        for number in range(rounds + 1):
            for server in found[:: 1 if number % 2 else -1]:
                await server.round(client, messages, clients)
        for server in found:
            await server.stall(client, messages)


def report(tutorial: Server, stream: Server, clients: int) -> None:
    """Print what was seen; the first round of each was for warming up."""
    print(f"{clients} clients in one process, messages of about 200 bytes")
    columns = ("delivered/s", "CPU us each", "KiB/client", f"{FEW} clients", "+ one stalled")
    print(f"{'':10}" + "".join(f"{name:>15}" for name in columns))
    for server in (tutorial, stream):
        figures = (
            f"{statistics.median(server.rates[1:]):.0f}",
            f"{statistics.median(server.costs[1:]):.2f}",
            f"{server.kilobytes:.1f}",
            f"{server.few:.0f}/s",
            f"{server.stalled:.0f}/s",
        )
        print(f"{server.name:10}" + "".join(f"{figure:>15}" for figure in figures))
    pairs = zip(tutorial.rates[1:], stream.rates[1:], strict=True)
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    costs = zip(tutorial.costs[1:], stream.costs[1:], strict=True)
    kept = statistics.median(theirs / ours for theirs, ours in costs if ours)
    print(f"stream against tutorial, paired: {ratio:.2f} x the rate, {kept:.2f} x per CPU second")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with TestIssuer() as issuer, servers(issuer) as found:
        asyncio.run(measure(found, options.clients, options.messages, options.rounds))
        report(*found, options.clients)


if __name__ == "__main__":
    main()
