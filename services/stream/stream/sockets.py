"""`/v1/stream`: the WebSocket. Two tasks for each client: one reads what it asks, one sends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from chassis.problems import Problem, problem_response
from chassis.runtime import Runtime, RuntimeDep
from stream.connections import EXPIRED
from stream.credentials import SUBPROTOCOL, Grant, presented, verify
from stream.entries import Control, Entry
from stream.log import LogUnavailableError
from stream.messages import (
    Auth,
    Authenticated,
    Error,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    Welcome,
    client_message,
)
from stream.service import Streams, StreamsDep, unavailable
from stream.session import Refused
from stream.subscriber import Ending

POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1008, 1009, 1011, 1013
BAD_MESSAGES = 20
"""In a row; then the stream ends."""

_GONE = Ending(1006, "the client is gone")
_UNAVAILABLE, _TOO_MANY = 503, 429
_REASONS = {401: "credentials", 403: "scope"}

router = APIRouter()


@router.websocket("/v1/stream")
async def stream(socket: WebSocket, runtime: RuntimeDep, streams: StreamsDep) -> None:
    """Open a stream. See docs/streaming.md."""
    connections = streams.connections
    refusal = connections.refusal()
    if refusal is not None:
        await _deny(socket, refusal)
        return
    with connections.place("websocket"):
        try:
            granted = await presented(socket, runtime, streams.tickets)
        except (Problem, LogUnavailableError) as error:
            await _deny(socket, _counted(streams, error))
            return
        if granted is None:
            await _open_unknown(socket, runtime, streams)
            return
        try:
            with connections.of_user(granted.principal):
                await _accept(socket)
                await SocketConnection(socket, runtime, streams, granted).run()
        except Problem as refused:
            await _deny(socket, refused)


async def _open_unknown(socket: WebSocket, runtime: Runtime, streams: Streams) -> None:
    """Open a stream of somebody who says in the first message who it is."""
    await _accept(socket)
    try:
        granted = await _first_message(socket, runtime, streams)
        if granted is None:
            return
        with streams.connections.of_user(granted.principal):
            await SocketConnection(socket, runtime, streams, granted).run()
    except Problem as problem:
        codes = {_UNAVAILABLE: TRY_LATER, _TOO_MANY: POLICY}
        if problem.status in _REASONS:
            streams.metrics.refused[_REASONS[problem.status]].inc()
        with contextlib.suppress(WebSocketDisconnect):
            code = codes.get(problem.status, EXPIRED)
            await socket.close(code, (problem.detail or problem.title)[:120])


async def _first_message(socket: WebSocket, runtime: Runtime, streams: Streams) -> Grant | None:
    try:
        async with asyncio.timeout(streams.settings.first_message_seconds):
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            said = client_message.validate_json(message.get("text") or "")
    except (TimeoutError, ValidationError):
        raise Problem(401, detail="the first message must be your token") from None
    if not isinstance(said, Auth):
        raise Problem(401, detail="the first message must be your token")
    return await verify(runtime, said.token)


async def _accept(socket: WebSocket) -> None:
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)


async def _deny(socket: WebSocket, problem: Problem) -> None:
    """Answer the handshake with a problem, as any other request."""
    with contextlib.suppress(WebSocketDisconnect):
        await socket.send_denial_response(problem_response(problem, socket.scope))


def _counted(streams: Streams, error: Problem | LogUnavailableError) -> Problem:
    if isinstance(error, LogUnavailableError):
        return unavailable()
    if error.status in _REASONS:
        streams.metrics.refused[_REASONS[error.status]].inc()
    return error


class SocketConnection:
    """One open WebSocket."""

    __slots__ = (
        "_bad", "_cut", "_grant", "_runtime", "_session", "_socket", "_streams", "_task",
        "ended_at", "expires_at", "subscriber", "warned",
    )  # fmt: skip

    def __init__(
        self, socket: WebSocket, runtime: Runtime, streams: Streams, granted: Grant
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._streams = streams
        self._grant = granted
        self._bad = 0
        self._cut = False
        self._task = asyncio.current_task()
        self.subscriber = streams.subscriber()
        self._session = streams.session(self.subscriber, granted.principal.subject)
        self.expires_at = granted.expires_at
        self.warned = False
        self.ended_at: float | None = None

    async def run(self) -> None:
        """Serve the client until one of the two ends it."""
        streams = self._streams
        self.subscriber.say(Control(Welcome(expires_at=int(self.expires_at))))
        streams.hub.attach(self.subscriber)
        streams.connections.open.add(self)
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        except asyncio.CancelledError:
            if not self._cut or self._task is None:
                raise
            self._task.uncancel()
        finally:
            streams.connections.open.discard(self)
            streams.hub.detach(self.subscriber)
            writer.cancel()
            await asyncio.wait([writer])

    def beat(self, now: float) -> None:
        """Do nothing: the server sends ping frames."""

    def cut(self) -> None:
        """End it though the client takes nothing; the kernel drops what waits there."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    async def _write(self) -> None:
        subscriber, send = self.subscriber, self._socket.send
        delivered = self._streams.metrics.delivered
        try:
            while (item := await subscriber.next()) is not None:
                await send({"type": "websocket.send", "text": item.text})
                if type(item) is Entry:
                    delivered[item.kind].inc()
            ending = subscriber.ending
            assert ending is not None
            if ending.last_words is not None:
                await send({"type": "websocket.send", "text": ending.last_words.text})
            await self._socket.close(ending.code, ending.reason)
        except (WebSocketDisconnect, RuntimeError):  # it left while we wrote
            pass
        finally:
            subscriber.end(_GONE)

    async def _read(self) -> None:
        subscriber = self.subscriber
        while True:
            await subscriber.room()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if subscriber.ending is None:
                await self._take(message.get("text"))

    async def _take(self, text: str | None) -> None:
        subscriber = self.subscriber
        if text is not None and len(text) > self._streams.settings.client_message_bytes:
            subscriber.end(Ending(TOO_BIG, "the message is too long"))
            return
        try:
            await self._handle(text)
            self._bad = 0
        except Refused as refused:
            self._bad += 1
            if self._bad >= BAD_MESSAGES:
                subscriber.end(Ending(POLICY, "too many bad messages"))
            subscriber.say(Control(refused.error))

    async def _handle(self, text: str | None) -> None:
        try:
            said = client_message.validate_json(text or "")
        except ValidationError as error:
            raise Refused(Error(code="bad-message", detail=_first(error))) from None
        match said:
            case Subscribe(topics=topics, last_event_id=last):
                self._session.subscribe(topics, last)
            case Unsubscribe(topics=topics):
                self._session.unsubscribe(topics)
            case Ping():
                self.subscriber.say(Control(Pong()))
            case Auth(token=token):
                await self._renew(token)

    async def _renew(self, token: str) -> None:
        """Go on with a fresh token of the same caller."""
        try:
            fresh = await verify(self._runtime, token)
        except Problem as problem:
            detail = problem.detail or problem.title
            raise Refused(Error(code="bad-token", detail=detail)) from None
        if fresh.principal.subject != self._grant.principal.subject:
            raise Refused(Error(code="bad-token", detail="the token is of somebody else"))
        self.expires_at, self.warned = fresh.expires_at, False
        self.subscriber.say(Control(Authenticated(expires_at=int(fresh.expires_at))))


def _first(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
