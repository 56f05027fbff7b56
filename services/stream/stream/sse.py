"""`/v1/events`: the same streams as server-sent events, for who only listens."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chassis.problems import Problem
from chassis.security.dependencies import unauthorized
from stream.connection import GONE, Connection, admitted
from stream.credentials import Grant, presented
from stream.entries import Control, Entry, Heartbeat
from stream.messages import Closing
from stream.service import Streams
from stream.session import Refused

MEDIA_TYPE = "text/event-stream"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """The answer that does not end. Limits are looked at before its first byte."""

    media_type = MEDIA_TYPE

    def __init__(self, streams: Streams, topics: Sequence[str], last_event_id: str | None) -> None:
        super().__init__()
        self._streams = streams
        self._topics = topics
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves or the stream is ended.

        Raises:
            Problem: 401 or 403, the credentials are no good; 429 or 503, there is no place; 422,
                the topics or the last event id are none.
        """
        shown = partial(_shown, HTTPConnection(scope), self._streams)
        async with admitted(self._streams, "sse", shown) as granted:
            connection = EventsConnection(self._streams, granted)
            try:
                connection.session.subscribe(self._topics, self._last_event_id)
            except Refused as refused:
                raise Problem(422, detail=f"{refused.error.detail}.") from None
            await connection.run(receive, send)


async def _shown(conn: HTTPConnection, streams: Streams) -> Grant:
    granted = await presented(conn, streams.runtime, streams.tickets)
    if granted is None:
        raise unauthorized()
    return granted


class EventsConnection(Connection):
    """One open server-sent event stream."""

    __slots__ = ()
    _comment = Heartbeat()

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve the client until one of the two ends it."""
        await self._serve(self._write(send), self._wait_for_end(receive))

    def _message(self, item: Entry | Control | Heartbeat) -> Message:
        return {"type": "http.response.body", "body": item.lines, "more_body": True}

    async def _write(self, send: Send) -> None:
        with contextlib.suppress(OSError):  # it left while we wrote
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            ending = await self._deliver(send)
            closing = Control(Closing(code=ending.code, reason=ending.reason))
            last = b"" if ending.last_words is None else ending.last_words.lines
            body = last + closing.lines
            await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _wait_for_end(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.subscriber.end(GONE)
