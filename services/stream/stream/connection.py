"""One open stream, whatever carries it: who gets a place, how it is served, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from typing import Any, ClassVar, TypeVar

from starlette.types import Message, Send

from chassis.problems import Problem
from stream.credentials import Grant
from stream.entries import Control, Entry, Heartbeat
from stream.log import LogUnavailableError
from stream.messages import Welcome
from stream.service import Streams, unavailable
from stream.subscriber import Ending

GONE = Ending(1006, "the client is gone")

Granted = TypeVar("Granted", bound=Grant | None)


@asynccontextmanager
async def admitted(
    streams: Streams, transport: str, credentials: Callable[[], Awaitable[Granted]]
) -> AsyncIterator[Granted]:
    """Give what an opening stream is granted, and a place for the time of the block.

    Whether there is a place is asked first, so that who finds none can use its ticket elsewhere.

    Raises:
        Problem: there is no place, or the credentials are no good or cannot be judged; counted.
    """
    connections = streams.connections
    refusal = connections.refusal()
    if refusal is not None:
        raise refusal
    with connections.place(transport):
        try:
            granted = await credentials()
        except LogUnavailableError as error:
            raise unavailable("Tickets cannot be looked up now; try again.") from error
        except Problem as problem:
            raise connections.counted(problem) from problem.__cause__
        with nullcontext() if granted is None else connections.of_user(granted.principal):
            yield granted


class Connection:
    """One open stream. A transport makes messages of what is sent, and hears when its client left.

    Attributes:
        expires_at: when the token ends, seconds since 1970.
        warned: the client was told that its token ends soon.
        ended_at: when the stream was told to end, monotonic seconds.
    """

    __slots__ = (
        "_beat_at", "_cut", "_grant", "_streams", "_task", "ended_at", "expires_at", "session",
        "subscriber", "warned",
    )  # fmt: skip

    _comment: ClassVar[Heartbeat | None] = None
    """What shows that the stream lives; None if the server does that."""

    def __init__(self, streams: Streams, granted: Grant) -> None:
        self._streams = streams
        self._grant = granted
        self._beat_at = streams.runtime.clock.monotonic()
        self._cut = False
        self._task = asyncio.current_task()
        self.subscriber = streams.subscriber()
        self.session = streams.session(self.subscriber, granted.principal.subject)
        self.expires_at = granted.expires_at
        self.warned = False
        self.ended_at: float | None = None
        self.subscriber.say(Control(Welcome(expires_at=int(self.expires_at))))

    def beat(self, now: float) -> None:
        """Show a quiet client that the stream lives and how far it is, if it is time for that."""
        if now - self._beat_at >= self._streams.settings.heartbeat_seconds:
            self._beat_at = now
            self.subscriber.beat(self._comment)

    def cut(self) -> None:
        """End it though the client takes nothing; the kernel drops what waits there."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    async def _serve(
        self, main: Coroutine[Any, Any, None], beside: Coroutine[Any, Any, None]
    ) -> None:
        """Serve the client until `main` ends; `beside` runs meanwhile, and its failure is ours."""
        streams = self._streams
        streams.hub.attach(self.subscriber)
        streams.connections.open.add(self)
        try:
            async with asyncio.TaskGroup() as both:
                other = both.create_task(beside)
                await main
                other.cancel()
        except asyncio.CancelledError:
            if not self._cut or self._task is None:
                raise
            self._task.uncancel()
        finally:
            streams.connections.open.discard(self)
            streams.hub.detach(self.subscriber)

    async def _deliver(self, send: Send) -> Ending:
        """Send what there is for the client; return why there will be no more."""
        subscriber, message = self.subscriber, self._message
        delivered = self._streams.metrics.delivered
        while (item := await subscriber.next()) is not None:
            await send(message(item))
            if type(item) is Entry:
                delivered[item.kind].inc()
        assert subscriber.ending is not None
        return subscriber.ending

    def _message(self, item: Entry | Control | Heartbeat) -> Message:
        raise NotImplementedError
