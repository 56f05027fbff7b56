"""The server as a process: signals, the drain, ports, several processes."""

import asyncio
import importlib.util
import json
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from chassis.testing.processes import end_with_parent


def _load(name: str) -> ModuleType:
    """Import a module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


process = _load("process")
Client, serving = process.Client, process.serving


async def test_sigterm_under_load_loses_no_response() -> None:
    """Keep-alive clients with pauses: each request that was sent is answered, then all turn away.

    A client stops once it is told `Connection: close`, as a load balancer does when readiness
    has turned 503.
    """
    answered = 0
    lost: list[str] = []
    told = 0

    async def client(number: int) -> None:
        nonlocal answered, told
        chance = random.Random(number)
        async with Client(server.port) as connection:
            while not connection.closing:
                try:
                    status, _ = await connection.get("/slow?seconds=0.02")
                    assert status == 200
                    answered += 1
                except (EOFError, OSError) as exc:
                    lost.append(repr(exc))
                    return
                await asyncio.sleep(chance.uniform(0, 0.03))
            told += 1

    async with serving(port="0") as server:
        clients = [asyncio.create_task(client(number)) for number in range(20)]
        async with asyncio.timeout(60):
            while answered < 100:  # noqa: ASYNC110  (a bounded poll)
                await asyncio.sleep(0.01)
        server.signal()
        await asyncio.gather(*clients)
        assert await server.ended() == 0
    assert lost == []
    assert told == 20
    assert len(server.events("request")) == answered, "an access line was lost"
    assert server.events("Application shutdown complete")


async def test_further_signals_do_not_cut_the_drain_short() -> None:
    async with serving(port="0") as server, Client(server.port) as connection:
        answer = asyncio.create_task(connection.get("/slow?seconds=1.5"))
        await process.in_flight(server.port)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            server.signal(number)
            await asyncio.sleep(0.1)
        status, _ = await answer
        assert status == 200
        assert connection.closing
        assert await server.ended() == 0
        assert server.events("Application shutdown complete")


async def test_the_drain_is_bounded() -> None:
    """A request that never ends is answered 503 after drain_seconds; the pools still close."""
    async with serving(port="0", drain_seconds="0.3") as server, Client(server.port) as connection:
        answer = asyncio.create_task(connection.get("/slow?seconds=600"))
        await process.in_flight(server.port)
        began = time.monotonic()
        server.signal()
        status, body = await answer
        assert status == 503
        assert json.loads(body)["title"] == "Service Unavailable"
        assert connection.closing
        assert await server.ended() == 0
        assert time.monotonic() - began < 30
        assert server.events("Application shutdown complete")
        assert "Traceback" not in "".join(server.raw)


async def test_readiness_turns_before_the_listener_closes() -> None:
    """During the delay new connections are served, told to close, and readiness is 503."""
    async with serving(port="0", shutdown_delay_seconds="5") as server:
        server.signal()
        async with asyncio.timeout(10):
            while True:
                async with Client(server.port) as connection:
                    status, body = await connection.get("/readyz")
                if status == 503:
                    break
        assert json.loads(body)["detail"] == "draining"
        async with Client(server.port) as connection:
            assert (await connection.get("/livez"))[0] == 200
        async with Client(server.port) as connection:
            status, _ = await connection.get("/slow")
            assert status == 200
            assert connection.closing
        assert await server.ended() == 0


async def test_a_signal_during_the_start_ends_cleanly() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chassis", "serve", "demo",
        env=process.environment(DEMO_PORT="0"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        preexec_fn=end_with_parent(),
    )  # fmt: skip
    server = process.Process(child)
    try:
        await server.wait_for("Started server process")
        server.signal()
        assert await server.ended() == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@asynccontextmanager
async def serving_by_two(**environment: str) -> AsyncIterator[tuple[Any, int]]:
    """Serve the demo by two workers; yield the process of their master and the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chassis", "serve", "demo",
        env=process.environment(DEMO_PORT=str(port), DEMO_WORKERS="2", **environment),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        preexec_fn=end_with_parent(),
    )  # fmt: skip
    server = process.Process(child)
    try:
        async with asyncio.timeout(process.START_SECONDS):
            while len(server.events("Application startup complete")) < 2:
                assert not server.reader.done(), "".join(server.raw)
                await asyncio.sleep(0.02)
        yield server, port
    finally:
        if child.returncode is None:
            child.terminate()  # its workers would outlive a kill by some seconds
        await child.wait()
        await server.reader


async def test_several_processes_share_a_port_and_drain_too(tmp_path: Path) -> None:
    """Two workers answer, `/metrics` adds them up, and no signal cuts their drain short."""
    async with serving_by_two(TMPDIR=str(tmp_path)) as (server, port):
        seen: set[int] = set()
        count = 0
        async with asyncio.timeout(60):
            while len(seen) < 2:
                async with Client(port) as connection:
                    seen.add(json.loads((await connection.get("/slow"))[1])["pid"])
                    count += 1
        total: list[str] = []
        expected = [f'http_requests_total{{method="GET",route="/slow",status="200"}} {count}.0']
        async with asyncio.timeout(60):
            while total != expected:  # a request is counted just after its answer
                async with Client(port) as connection:
                    _, text = await connection.get("/metrics")
                lines = text.decode().splitlines()
                total = [line for line in lines if "http_requests_total{" in line]
        async with Client(port) as connection:
            answer = asyncio.create_task(connection.get("/slow?seconds=1.5"))
            await process.in_flight(port)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                server.signal(number)
                await asyncio.sleep(0.1)
            assert (await answer)[0] == 200
        assert await server.ended() == 0
        assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_workers_whose_master_was_killed_end_by_themselves() -> None:
    """They drain as after SIGTERM, and the port is free for the next start."""
    async with serving_by_two() as (server, port), Client(port) as connection:
        answer = asyncio.create_task(connection.get("/slow?seconds=4"))
        await process.in_flight(port)
        server.signal(signal.SIGKILL)
        assert (await answer)[0] == 200
        await server.ended()  # the workers hold its output: until both have ended
    assert len(server.events("the master process is gone")) == 2
    assert len(server.events("Application shutdown complete")) == 2
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_connections_that_the_kernel_took_before_the_signal_are_served() -> None:
    """The process stands still; clients connect and ask; the signal comes; all are answered."""
    async with serving(port="0") as server:
        server.signal(signal.SIGSTOP)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(server.port)) for _ in range(30)]
            answers = [asyncio.create_task(client.get("/slow")) for client in clients]
            await asyncio.sleep(0)
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)
            assert {status for status, _ in await asyncio.gather(*answers)} == {200}
        assert await server.ended() == 0


async def test_libraries_are_quiet_at_level_info() -> None:
    """Alembic and SQLAlchemy say nothing of their everyday work, unless asked for `debug`."""
    for level, expected in (("info", logging.WARNING), ("warning", logging.WARNING), ("debug", 10)):
        probe = (
            "import logging; from chassis import ServiceSettings;"
            "from chassis.server import configure_logs;"
            f"configure_logs(ServiceSettings(service_name='demo', log_level='{level}'));"
            "print(*(logging.getLogger(name).getEffectiveLevel()"
            " for name in ('alembic.runtime.migration', 'sqlalchemy.pool.impl.QueuePool')))"
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", probe, env=process.environment(), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await child.communicate()
        assert printed.decode().split() == [str(expected)] * 2, level


async def test_the_drain_waits_for_streams_that_end_themselves() -> None:
    """A WebSocket is not cut at the signal: the service closes it, in its own words and time."""
    async with serving(port="0") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        query = "seconds=1.5&ticket=secret-ticket"
        writer.write(f"GET /stream?{query} HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        server.signal()
        began = time.monotonic()
        async with asyncio.timeout(30):
            frame = await reader.readexactly(2 + len("goodbye"))
            assert frame[2:] == b"goodbye"
            assert time.monotonic() - began > 1.0
            close = await reader.readexactly(4)
        assert int.from_bytes(close[2:]) == 1012
        writer.close()
    assert "secret-ticket" not in "".join(server.raw)
    assert any("/stream" in line for line in server.raw)


def test_what_nobody_takes_does_not_wait_for_ever() -> None:
    """Accepted connections inherit the listener's limit, where the kernel has one."""
    from chassis.server import UNTAKEN_SECONDS, listen
    from chassis.settings import ServiceSettings

    with listen(ServiceSettings(port=0)) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                option = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert accepted.getsockopt(*option) == UNTAKEN_SECONDS * 1000
