"""A server that fails on command: real sockets, so that clients meet the real faults."""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that the peer received in full. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    all_headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query parameters."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json(self) -> Any:
        """Return the body as JSON."""
        return json_module.loads(self.body)


@dataclass(slots=True)
class Connection:
    """One accepted connection, as a behaviour sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    socket: socket.socket

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.writer.transport.abort()


Behaviour = Callable[[Connection, RecordedRequest], Awaitable[bool]]
"""Answers one request; returns whether the connection stays open."""


class FaultyPeer:
    """A loopback HTTP server whose behaviour a test chooses, one call at a time.

    Each method below sets the standing behaviour, or, with `times=n`, queues it for the next n
    requests before the standing one. All of them also end a `refuse`. Handlers set by `on` win
    over both. At first it answers `200 {}`.

    Attributes:
        requests: all requests received in full, in order.
        connections: how many connections were accepted.
    """

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        self._standing: Behaviour = answer(200, json={})
        self._queue: deque[Behaviour] = deque()
        self._routes: dict[tuple[str, str], Behaviour] = {}
        self._open: dict[asyncio.Task[None], socket.socket] = {}
        self._arrived = asyncio.Event()
        self._listener: socket.socket | None = None
        # Bound, never listening: it keeps the port ours while connections are refused.
        self._holder = _bound_socket(0)
        self.port: int = self._holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    # -- behaviours -----------------------------------------------------------------------------

    def respond(
        self,
        status: int = 200,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer with `status` and a JSON value or raw bytes."""
        self._set(answer(status, json=json, body=body, headers=headers), times)

    def slow(
        self,
        seconds: float,
        status: int = 200,
        *,
        json: Any = None,
        times: int | None = None,
    ) -> None:
        """Answer after `seconds` of real time."""
        reply = answer(status, json=json)

        async def behave(connection: Connection, request: RecordedRequest) -> bool:
            await asyncio.sleep(seconds)
            return await reply(connection, request)

        self._set(behave, times)

    def hang(self, *, times: int | None = None) -> None:
        """Read the request and never answer."""

        async def behave(connection: Connection, _: RecordedRequest) -> bool:
            await connection.reader.read()  # until the client gives up
            return False

        self._set(behave, times)

    def reset(self, *, times: int | None = None) -> None:
        """Reset the connection (TCP RST) instead of answering."""

        async def behave(connection: Connection, _: RecordedRequest) -> bool:
            connection.reset()
            return False

        self._set(behave, times)

    def disconnect(self, *, times: int | None = None) -> None:
        """Close the connection in order, without a byte of an answer."""
        self._set(_raw(b""), times)

    def garbage(self, *, times: int | None = None) -> None:
        """Answer with bytes that are not HTTP."""
        self._set(_raw(b"\x16\x03\x01 this is no HTTP answer\r\n\r\n"), times)

    def truncated(self, *, times: int | None = None) -> None:
        """Promise a longer body than is sent, then close."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        self._set(_raw(head + b'{"half": '), times)

    def use(self, behaviour: Behaviour, *, times: int | None = None) -> None:
        """Run `behaviour`, for faults that have no method here."""
        self._set(behaviour, times)

    def on(
        self,
        method: str,
        path: str,
        status: int = 200,
        *,
        json: Any = None,
        handler: Callable[[RecordedRequest], tuple[int, Any]] | None = None,
    ) -> None:
        """Answer `method path` always so; `handler`, if given, returns (status, json)."""

        async def behave(connection: Connection, request: RecordedRequest) -> bool:
            chosen = handler(request) if handler else (status, json)
            return await answer(chosen[0], json=chosen[1])(connection, request)

        self._routes[method.upper(), path] = behave
        self.accept()

    def refuse(self) -> None:
        """Refuse connections, and close the ones that are open, until `accept` or another call."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.close_connections()

    def accept(self) -> None:
        """Take connections again."""
        if self._listener is None:
            self._listener = _bound_socket(self.port)
            self._listener.listen(128)
            asyncio.get_running_loop().add_reader(self._listener, self._on_connection)

    def close_connections(self) -> None:
        """Close the open connections, idle ones too; clients see the end of them at once."""
        for task, accepted in self._open.items():
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
            task.cancel()

    async def wait_for_requests(self, number: int, *, within: float = 30.0) -> None:
        """Wait, at most `within` seconds, until `number` requests have arrived."""
        async with asyncio.timeout(within):
            while len(self.requests) < number:
                self._arrived.clear()
                await self._arrived.wait()

    # -- the server -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, and end every connection."""
        self.refuse()
        if self._open:
            await asyncio.wait(self._open)
        self._holder.close()

    def _set(self, behaviour: Behaviour, times: int | None) -> None:
        if times is None:
            self._standing = behaviour
        else:
            self._queue.extend([behaviour] * times)
        self.accept()

    def _on_connection(self) -> None:
        if self._listener is None:
            return
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self._listener.accept()
            accepted.setblocking(False)
            self.connections += 1
            task = asyncio.ensure_future(self._serve(accepted))
            self._open[task] = accepted
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A task that was cancelled before its first step never saw its socket.
        with contextlib.suppress(OSError):
            self._open.pop(task).close()

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=accepted)
        except OSError:
            return
        connection = Connection(reader, writer, accepted)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while request := await _read_request(reader):
                    self.requests.append(request)
                    self._arrived.set()
                    if not await self._choose(request)(connection, request):
                        break
        except asyncio.CancelledError:
            pass  # `refuse` and the end of the test cancel connections; nobody awaits them
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _choose(self, request: RecordedRequest) -> Behaviour:
        if route := self._routes.get((request.method, request.path)):
            return route
        return self._queue.popleft() if self._queue else self._standing


def answer(
    status: int,
    *,
    json: Any = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """Return the behaviour that answers with `status` and keeps the connection open."""
    payload = (
        body if body is not None else b"" if json is None else json_module.dumps(json).encode()
    )
    fields = {"Content-Length": str(len(payload))}
    if body is None and json is not None:
        fields["Content-Type"] = "application/json"
    fields |= dict(headers or {})

    async def behave(connection: Connection, request: RecordedRequest) -> bool:
        head = f"HTTP/1.1 {status} Status\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        content = b"" if request.method == "HEAD" else payload
        connection.writer.write(head.encode("latin-1") + b"\r\n" + content)
        await connection.writer.drain()
        return True

    return behave


def _raw(data: bytes) -> Behaviour:
    async def behave(connection: Connection, _: RecordedRequest) -> bool:
        connection.writer.write(data)
        await connection.writer.drain()
        return False

    return behave


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", port))
    return bound


async def _read_request(reader: asyncio.StreamReader) -> RecordedRequest | None:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    pairs = [
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(":") for line in lines[1:] if line)
    ]
    headers = dict(pairs)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return RecordedRequest(method, target, headers, body, pairs)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
