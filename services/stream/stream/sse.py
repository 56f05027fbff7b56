"""`/v1/events`: the same streams as server-sent events, for who only listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chassis.problems import Problem
from chassis.runtime import Runtime
from stream.credentials import Grant
from stream.entries import Control, Entry, Heartbeat
from stream.messages import Welcome
from stream.service import Streams
from stream.session import Refused
from stream.subscriber import Ending

MEDIA_TYPE = "text/event-stream"
_GONE = Ending(1006, "the client is gone")
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """The answer that does not end. Limits are looked at before its first byte."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        runtime: Runtime,
        streams: Streams,
        granted: Grant,
        topics: Sequence[str],
        last_event_id: str | None,
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._streams = streams
        self._grant = granted
        self._topics = topics
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves or the stream is ended.

        Raises:
            Problem: 429 or 503, there is no place; 422, the topics or the last event id are none.
        """
        del scope
        connections = self._streams.connections
        refusal = connections.refusal()
        if refusal is not None:
            raise refusal
        with connections.place("sse"), connections.of_user(self._grant.principal):
            connection = EventsConnection(self._runtime, self._streams, self._grant)
            try:
                connection.session.subscribe(self._topics, self._last_event_id)
            except Refused as refused:
                raise Problem(422, detail=f"{refused.error.detail}.") from None
            await connection.run(receive, send)


class EventsConnection:
    """One open server-sent event stream."""

    def __init__(self, runtime: Runtime, streams: Streams, granted: Grant) -> None:
        self._runtime = runtime
        self._streams = streams
        self.subscriber = streams.subscriber()
        self.session = streams.session(self.subscriber, granted.principal.subject)
        self.expires_at = granted.expires_at
        self.warned = False
        self.ended_at: float | None = None
        self._sent_at = runtime.clock.monotonic()
        self._beating = False
        self._cut = False
        self._task = asyncio.current_task()

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve the client."""
        streams = self._streams
        streams.hub.attach(self.subscriber)
        streams.connections.open.add(self)
        leaving = asyncio.create_task(self._wait_for_end(receive))
        try:
            await self._write(send)
        except asyncio.CancelledError:
            if not self._cut or self._task is None:
                raise
            self._task.uncancel()
        finally:
            streams.connections.open.discard(self)
            streams.hub.detach(self.subscriber)
            leaving.cancel()
            await asyncio.wait([leaving])

    def beat(self, now: float) -> None:
        """Send a comment when nothing else was sent for a while."""
        if not self._beating and now - self._sent_at >= self._streams.settings.heartbeat_seconds:
            self._beating = True
            self.subscriber.say(Heartbeat())

    def cut(self) -> None:
        """End it though the client takes nothing; the kernel drops what waits there."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    async def _write(self, send: Send) -> None:
        subscriber, clock = self.subscriber, self._runtime.clock
        delivered = self._streams.metrics.delivered
        with contextlib.suppress(OSError):  # it left while we wrote
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await send(_body(Control(Welcome(expires_at=int(self.expires_at))).lines))
            while (item := await subscriber.next()) is not None:
                await send(_body(item.lines))
                self._sent_at, self._beating = clock.monotonic(), False
                if type(item) is Entry:
                    delivered[item.kind].inc()
            ending = subscriber.ending
            assert ending is not None
            last = b"" if ending.last_words is None else ending.last_words.lines
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _wait_for_end(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.subscriber.end(_GONE)


def _body(lines: bytes) -> Message:
    return {"type": "http.response.body", "body": lines, "more_body": True}
