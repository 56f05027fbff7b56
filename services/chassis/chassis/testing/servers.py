"""Run an ASGI application for a test: in process behind a client, or on a real port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIFESPAN_TIMEOUT = 60.0


class LifespanError(RuntimeError):
    """The application refused to start or failed while it stopped."""


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Run the ASGI lifespan of `app` around the block, in one task, as a server does.

    Yields the lifespan state. An exception of the start or the stop is raised as it is.
    """
    state: dict[str, Any] = {}
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task: asyncio.Future[None] = asyncio.ensure_future(_call(app, scope, inbox.get, outbox.put))
    try:
        await _exchange(task, inbox, outbox, "startup")
        try:
            yield state
        finally:
            await _exchange(task, inbox, outbox, "shutdown")
            await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        elif not task.cancelled():
            task.exception()  # seen: the message that went with it was raised


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _exchange(
    task: asyncio.Future[None],
    inbox: asyncio.Queue[Message],
    outbox: asyncio.Queue[Message],
    phase: str,
) -> None:
    await inbox.put({"type": f"lifespan.{phase}"})
    answer = asyncio.ensure_future(outbox.get())
    both: list[asyncio.Future[Any]] = [task, answer]
    try:
        async with asyncio.timeout(LIFESPAN_TIMEOUT):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not answer.done():
            answer.cancel()
    if answer.cancelled() or not answer.done():
        await task  # raises what ended it
        raise LifespanError(f"the application ended before its {phase} was complete")
    message = answer.result()
    if message["type"] != f"lifespan.{phase}.complete":
        async with asyncio.timeout(LIFESPAN_TIMEOUT):
            await asyncio.wait([task])
        if error := task.exception():
            raise error
        raise LifespanError(message.get("message") or f"{phase} failed")


@asynccontextmanager
async def app_client(
    app: ASGIApp,
    *,
    base_url: str = "http://testserver",
    headers: dict[str, str] | None = None,
    raise_app_exceptions: bool = True,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Run the lifespan of `app` and yield a client that calls it in process.

    Args:
        app: the ASGI application.
        base_url: what relative URLs stand on.
        headers: sent with every request.
        raise_app_exceptions: false to see the 500 answer that a real client would see.
    """
    async with lifespan(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx2.ASGITransport(with_state, raise_app_exceptions=raise_app_exceptions)
        async with httpx2.AsyncClient(
            transport=transport, base_url=base_url, headers=headers, trust_env=False
        ) as client:
            yield client


class LoopServer(uvicorn.Server):
    """uvicorn in the event loop of a test: it takes no signals and leaves no connection behind."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        await self._serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, and with it the connections that it forgets.

        One that is accepted while the listener closes is told nothing; what is left of it when the
        loop is gone would fail whichever test runs when the collector finds it.
        """
        for server in self.servers:
            server.close()
        for _ in range(3):  # what was accepted becomes a connection
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def running_app(app: ASGIApp, **options: Any) -> AsyncIterator[str]:
    """Serve `app` by uvicorn on an ephemeral loopback port of this loop; yield its base URL.

    Raises:
        LifespanError: when the application does not start.
    """
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        **options,
    )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    server = LoopServer(config)
    task = asyncio.ensure_future(_serve(server, listener))
    try:
        async with asyncio.timeout(LIFESPAN_TIMEOUT):
            while not server.started and not task.done():  # noqa: ASYNC110  (uvicorn has no event)
                await asyncio.sleep(0.005)
        if task.done():
            await task
            raise LifespanError("the application did not start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait([task])
        listener.close()
    await task


async def _serve(server: LoopServer, listener: socket.socket) -> None:
    try:
        await server.serve([listener])
    except SystemExit as exc:  # uvicorn's way to say that the lifespan failed
        raise LifespanError(f"the application did not start (exit status {exc.code})") from None
