"""`/v1/stream`: the WebSocket. Two tasks for each client: one reads what it asks, one sends."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from chassis.problems import Problem, problem_response
from stream.connection import GONE, Connection, admitted
from stream.connections import EXPIRED
from stream.credentials import SUBPROTOCOL, Grant, presented, verify
from stream.entries import Control, Entry, Heartbeat
from stream.messages import (
    Auth,
    Authenticated,
    Error,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    client_message,
)
from stream.service import Streams, StreamsDep
from stream.session import Refused
from stream.subscriber import Ending

POLICY, TOO_BIG, TRY_LATER = 1008, 1009, 1013
BAD_MESSAGES = 20
"""In a row; then the stream ends."""

_CODES = {503: TRY_LATER, 429: POLICY}
"""For what is refused after the handshake; else it is the token."""

router = APIRouter()


@router.websocket("/v1/stream")
async def stream(socket: WebSocket, streams: StreamsDep) -> None:
    """Open a stream. See docs/streaming.md."""
    shown = partial(presented, socket, streams.runtime, streams.tickets)
    try:
        async with admitted(streams, "websocket", shown) as granted:
            if granted is not None:
                await _accept(socket)
                await SocketConnection(socket, streams, granted).run()
                return
        await _open_unknown(socket, streams)
    except Problem as refused:
        await _deny(socket, refused)


@router.get("/v1/stream", include_in_schema=False)
async def no_handshake() -> None:
    """Tell a plain GET what is here."""
    raise Problem(
        426,
        detail="This is a WebSocket: connect to it with a WebSocket client. "
        "GET /v1/events gives the same events over plain HTTP.",
        headers={"Upgrade": "websocket"},
    )


async def _open_unknown(socket: WebSocket, streams: Streams) -> None:
    """Open a stream of somebody who says in the first message who it is.

    Raises:
        Problem: 503, as many wait for that message as may.
    """
    with contextlib.ExitStack() as waiting:
        waiting.enter_context(streams.connections.waiting())
        await _accept(socket)
        try:
            token = await _first_message(socket, streams)
            waiting.close()
            if token is None:
                return
            async with admitted(
                streams, "websocket", partial(verify, streams.runtime, token)
            ) as granted:
                await SocketConnection(socket, streams, granted).run()
        except Problem as problem:
            with contextlib.suppress(WebSocketDisconnect):
                code = _CODES.get(problem.status, EXPIRED)
                await socket.close(code, (problem.detail or problem.title)[:120])


async def _first_message(socket: WebSocket, streams: Streams) -> str | None:
    """Return the token of the first message; None if the client left.

    Raises:
        Problem: 401, it is something else or does not come.
    """
    try:
        async with asyncio.timeout(streams.settings.first_message_seconds):
            message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        said = client_message.validate_json(message.get("text") or "")
    except (TimeoutError, ValidationError):
        said = None
    if not isinstance(said, Auth):
        problem = Problem(401, detail="the first message must be your token")
        raise streams.connections.counted(problem)
    return said.token


async def _accept(socket: WebSocket) -> None:
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)


async def _deny(socket: WebSocket, problem: Problem) -> None:
    """Answer the handshake with a problem, as any other request."""
    with contextlib.suppress(WebSocketDisconnect):
        await socket.send_denial_response(problem_response(problem, socket.scope))


class SocketConnection(Connection):
    """One open WebSocket."""

    __slots__ = ("_bad", "_socket")

    def __init__(self, socket: WebSocket, streams: Streams, granted: Grant) -> None:
        super().__init__(streams, granted)
        self._socket = socket
        self._bad = 0

    async def run(self) -> None:
        """Serve the client until one of the two ends it."""
        await self._serve(self._read(), self._write())

    def _message(self, item: Entry | Control | Heartbeat) -> Message:
        return {"type": "websocket.send", "text": item.text}

    async def _write(self) -> None:
        try:
            ending = await self._deliver(self._socket.send)
            if ending.last_words is not None:
                await self._socket.send(self._message(ending.last_words))
            await self._socket.close(ending.code, ending.reason)
        except (WebSocketDisconnect, RuntimeError):  # it left while we wrote
            pass
        finally:
            self.subscriber.end(GONE)

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
                self.session.subscribe(topics, last)
            case Unsubscribe(topics=topics):
                self.session.unsubscribe(topics)
            case Ping():
                self.subscriber.say(Control(Pong()))
            case Auth(token=token):
                await self._renew(token)

    async def _renew(self, token: str) -> None:
        """Go on with a fresh token of the same caller."""
        try:
            fresh = await verify(self._streams.runtime, token)
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
