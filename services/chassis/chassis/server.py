"""Serves an application by uvicorn and ends it without dropping a request.

On SIGTERM or SIGINT: `/readyz` turns 503 and every answer carries `Connection: close`; after
`shutdown_delay_seconds`, in which clients and load balancers turn away, the listener closes; open
connections may still bring a request that was on its way; what is in flight, and the streams that
the service ends itself, have `drain_seconds` to finish; then pools close and telemetry is flushed.
A further signal changes nothing: the bound is the drain itself, and after it SIGKILL. The process
ends with 0, also as PID 1.

One process unless `workers` is more (see `multiprocess`). Forwarded headers are not trusted: the
application sees the address of its peer, and who calls is said by a token.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.lifespan.on import LifespanOn, LifespanSendMessage

from chassis import logs
from chassis.lifecycle import Lifecycle
from chassis.settings import ServiceSettings, SettingsError

BACKLOG = 2048
LINGER_SECONDS = 0.5
"""How long an idle connection stays open after the listener closed, for a request on its way."""

ACCEPT_SECONDS = 1.0
"""Before the listener closes: the longest time to accept what the kernel already took."""

PING_SECONDS = 15.0
"""Between two ping frames to a WebSocket, and how long it may take to answer one."""

UNTAKEN_SECONDS = 30
"""How long what we sent may wait for a client that takes nothing; then its connection is gone. A
server cannot close it otherwise: closing waits for what is written to be taken."""

_POLL = 0.02
_FAILED = frozenset({"lifespan.startup.failed", "lifespan.shutdown.failed"})
_log = logging.getLogger("chassis.server")


def serve(create: Callable[[], FastAPI], settings: ServiceSettings, service: str) -> None:
    """Serve the application that `create` makes until SIGTERM or SIGINT.

    Raises:
        SettingsError: the address cannot be bound, or the service's own `setup` refuses a setting.
    """
    if settings.workers > 1:
        from chassis.multiprocess import serve_many  # noqa: PLC0415  (gunicorn is not for one)

        serve_many(create, settings, service)
        return
    listener = listen(settings)
    configure_logs(settings)
    app = create()
    host, port = listener.getsockname()[:2]
    _log.info("listening on %s port %d", host, port)
    run(app, settings, [listener])


def configure_logs(settings: ServiceSettings) -> None:
    """Configure the logs of a process that serves: libraries speak up from `warning` on.

    At level `info` Alembic and the pools of SQLAlchemy tell of every connection; `debug` shows all.
    """
    logs.configure(settings)
    for name in ("alembic", "sqlalchemy"):
        quiet = logging.getLogger().level == logging.INFO
        logging.getLogger(name).setLevel(logging.WARNING if quiet else logging.NOTSET)
    uvicorn_log = logging.getLogger("uvicorn.error")
    if _without_query not in uvicorn_log.filters:
        uvicorn_log.addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query off the lines that uvicorn writes of WebSockets: it may hold a ticket."""
    if "WebSocket" in str(record.msg) and isinstance(record.args, tuple):
        record.args = tuple(
            each.partition("?")[0] if isinstance(each, str) else each for each in record.args
        )
    return True


def listen(settings: ServiceSettings) -> socket.socket:
    """Return the listening socket of `settings`.

    Raises:
        SettingsError: one line that names the address and the reason.
    """
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as exc:
        prefix = str(settings.model_config.get("env_prefix", ""))
        number = getattr(exc, "errno", None)
        reason = os.strerror(number) if number and number > 0 else str(exc)
        raise SettingsError(
            f"{prefix}PORT: cannot listen on {settings.host}:{settings.port}"
            f" ({reason.lower()}); free the address or choose another port"
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_SECONDS * 1000)
    return listener


def run(
    app: FastAPI,
    settings: ServiceSettings,
    sockets: list[socket.socket],
    notify: Callable[[], None] | None = None,
) -> None:
    """Run one server on `sockets` until a signal; `notify` is called every few seconds.

    Raises:
        SettingsError: the service's own `setup` refuses a setting.
        SystemExit: 3, when it fails in another way.
    """
    lifecycle = app.state.runtime.lifecycle
    config = uvicorn.Config(
        app,
        loop="auto",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        # A compressor for each connection costs more memory than all else that it needs.
        ws_per_message_deflate=False,
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        callback_notify=None if notify is None else _asynchronous(notify),
        timeout_notify=2,
    )
    config.load()
    config.lifespan_class = _lifespan_of(lifecycle)
    server = DrainingServer(
        config, lifecycle, delay=settings.shutdown_delay_seconds, drain=settings.drain_seconds
    )
    try:
        server.run(sockets)
    finally:
        if isinstance(lifecycle.failed, SettingsError):
            raise lifecycle.failed from None
    if lifecycle.failed is not None:
        raise SystemExit(STARTUP_FAILURE)


def _lifespan_of(lifecycle: Lifecycle) -> type[LifespanOn]:
    class Lifespan(LifespanOn):
        """uvicorn's, without the stack trace of a refused setting: that is one line for people."""

        async def send(self, message: LifespanSendMessage) -> None:
            if isinstance(lifecycle.failed, SettingsError) and message["type"] in _FAILED:
                cast("dict[str, str]", message)["message"] = ""
            await super().send(message)

    return Lifespan


def _asynchronous(notify: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        notify()

    return call


async def _accept_waiting(sockets: list[socket.socket], seconds: float) -> None:
    """Let the loop accept the connections that wait in the kernel: closing would reset them."""
    waiting = select.poll()
    for listener in sockets:
        waiting.register(listener.fileno(), select.POLLIN)
    ends = time.monotonic() + seconds
    await asyncio.sleep(0)
    while waiting.poll(0) and time.monotonic() < ends:  # noqa: ASYNC110  (the kernel has no event)
        await asyncio.sleep(0)


class DrainingServer(uvicorn.Server):
    """uvicorn with the end that the module describes. Durations are in seconds."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, *, delay: float, drain: float
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._delay = delay
        self._drain = drain
        self._told_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal; ignore the others. Runs in a signal handler."""
        del sig, frame
        if self._told_at is None:
            self._told_at = time.monotonic()
            self._lifecycle.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does; what exists then stays, so the collector need not look at it."""
        await super().startup(sockets)
        gc.freeze()
        # Requests and their spans leave no cycles: looking for some at every 700th object costs
        # several percent of a cheap request. Bounded: a look at each 20,000 new ones.
        gc.set_threshold(20_000, 10, 10)

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether to stop accepting."""
        if self._told_at is not None and time.monotonic() - self._told_at >= self._delay:
            self.should_exit = True
        if self._lifecycle.failed is not None:  # after it had waited for its migrations
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let requests arrive that are on their way, drain, close."""
        self._lifecycle.draining = True
        ends = time.monotonic() + self._drain
        await _accept_waiting(sockets or [], min(ACCEPT_SECONDS, self._drain))
        _log.info("draining %d connections", len(self.server_state.connections))
        for server in self.servers:
            server.close()
        lingers = min(time.monotonic() + LINGER_SECONDS, ends)
        while self.server_state.connections and time.monotonic() < lingers:  # noqa: ASYNC110  (uvicorn tells nobody)
            await asyncio.sleep(_POLL)
        # uvicorn would close WebSockets at once; the service says goodbye, one after the other.
        while self._lifecycle.streams and time.monotonic() < ends:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        left = max(ends - time.monotonic(), 0.1)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # seconds, any number will do
        await super().shutdown(sockets)
