"""One client's end of the stream: what waits for it, bounded, and what it asked to catch up on.

Nobody waits for a client. An event is put into its queue or, when the queue is full, the policy
says what goes: the oldest events, and the client is told how many; or the client itself.

What a client missed is not queued at all: its writer takes it from the history piece by piece, and
the topic goes over to the queue when the history has no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.entries import Control, Entry, Heartbeat
from stream.messages import Dropped, Gap, Reached
from stream.positions import ORIGIN, Position
from stream.topics import EVERY_SENSOR, SENSORS, kind_of, shown_name

if TYPE_CHECKING:
    from stream.hub import Hub

PIECE = 64
"""Entries taken from the history at once."""

CONTROLS = 32
"""Answers that may wait for a client before no more of its messages are read."""

RESTART, OVERLOADED = 1012, 1013


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream ends: a close code (RFC 6455), a reason, and what is said before."""

    code: int
    reason: str
    last_words: Control | None = None


@dataclass(slots=True)
class Replay:
    """Topics whose past is being sent, and how far it was."""

    topics: set[str]
    after: Position
    fresh: bool
    """It begins at a time before the log was read, and not after an event: nothing is missing."""


class Subscriber:
    """The queue of one client; used on one event loop. `bytes_` bounds the texts that wait."""

    __slots__ = (
        "_bytes", "_controls", "_dropped", "_hub", "_limit", "_limit_bytes", "_on_dropped",
        "_piece", "_policy", "_queue", "_replays", "_room", "_told", "_wake", "ending", "topics",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        *,
        messages: int,
        bytes_: int,
        policy: str,
        on_dropped: Callable[[Entry], None],
    ) -> None:
        self._hub = hub
        self._limit = messages
        self._limit_bytes = bytes_
        self._policy = policy
        self._on_dropped = on_dropped
        self._queue: deque[Entry] = deque()
        self._bytes = 0
        self._dropped = 0
        self._controls: deque[Control | Heartbeat] = deque()
        self._replays: deque[Replay] = deque()
        self._piece: deque[Entry] = deque()
        self._told = ORIGIN
        self._wake: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.topics: set[str] = set()
        self.ending: Ending | None = None

    @property
    def depth(self) -> int:
        """How many events wait."""
        return len(self._queue)

    # What the hub and the session put in.

    def offer(self, entry: Entry) -> None:
        """Queue an event; never waits."""
        if self.ending is not None:
            return
        queue = self._queue
        if len(queue) >= self._limit or self._bytes + entry.size > self._limit_bytes:
            self._make_room(entry)
            if self.ending is not None:
                return
        queue.append(entry)
        self._bytes += entry.size
        if self._wake is not None:
            self.wake()

    def say(self, control: Control | Heartbeat) -> None:
        """Queue a message about the stream; it goes before the events."""
        if self._told == ORIGIN and control.position is not None:
            self._told = control.position
        self._controls.append(control)
        if len(self._controls) >= CONTROLS:
            self._room.clear()
        self.wake()

    def beat(self, comment: Heartbeat | None) -> None:
        """Queue a sign of life for a client that is sent nothing.

        It says how far the client is, if that is news: an id that stays behind while others get
        events would be older than the history one day. Else it is the comment, if there is one.
        """
        if self._controls:  # the client takes nothing, or is about to be sent something
            return
        head = self._hub.head
        waits = self._queue or self._piece or self._replays or self._dropped
        if self.topics and not waits and self._hub.loaded and head > self._told:
            self._told = head
            self.say(Control(Reached(last_event_id=str(head)), position=head))
        elif comment is not None:
            self.say(comment)

    async def room(self) -> None:
        """Wait until the client took what it was answered."""
        await self._room.wait()

    def replay(self, topics: set[str], after: Position, *, fresh: bool = False) -> None:
        """Send the past of `topics` after a position, then their present."""
        self._replays.append(Replay(topics, after, fresh))
        self.wake()

    def forget(self, topics: set[str]) -> None:
        """Send no more of `topics`, neither of their past nor of what waits."""
        for replay in self._replays:
            replay.topics -= topics
        self._replays = deque(replay for replay in self._replays if replay.topics)
        wanted = self.wanted - topics
        self._queue = deque(entry for entry in self._queue if _is_of(entry, wanted))
        self._piece = deque(entry for entry in self._piece if _is_of(entry, wanted))
        self._bytes = sum(entry.size for entry in self._queue)

    @property
    def wanted(self) -> set[str]:
        """The topics that it gets, or gets once their past is sent."""
        return self.topics.union(*(replay.topics for replay in self._replays))

    def end(self, ending: Ending) -> None:
        """End the stream: what waits is given up, last words are said; the first reason wins."""
        if self.ending is None:
            self.ending = ending
            self._queue.clear()
            self._piece.clear()
            self._replays.clear()
            self._room.set()
            self.wake()

    def wake(self) -> None:
        """Let the writer look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        self._wake = None

    def _make_room(self, entry: Entry) -> None:
        if self._policy == "disconnect":
            self._on_dropped(entry)
            self.end(
                Ending(OVERLOADED, "you read too slowly; connect again with your last event id")
            )
            return
        queue = self._queue
        while queue and (len(queue) >= self._limit or self._bytes + entry.size > self._limit_bytes):
            oldest = queue.popleft()
            self._bytes -= oldest.size
            self._dropped += 1
            self._on_dropped(oldest)

    # What the writer takes out.

    async def next(self) -> Entry | Control | Heartbeat | None:
        """Return what to send next, waiting for it; None when the stream ends."""
        while True:
            if self.ending is not None:
                return None
            item = self._take()
            if item is not None:
                return item
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def _take(self) -> Entry | Control | Heartbeat | None:
        if self._controls:
            control = self._controls.popleft()
            if len(self._controls) < CONTROLS:
                self._room.set()
            return control
        if self._replays and not self._piece and (gap := self._pull()) is not None:
            return gap
        # Topics whose present comes already may have older events waiting than the past of others.
        piece, queue = self._piece, self._queue
        if piece and not (queue and queue[0].position < piece[0].position):
            entry = piece.popleft()
            self._told = entry.position
            return entry
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return Control(Dropped(count=count))
        if queue:
            entry = queue.popleft()
            self._bytes -= entry.size
            self._told = entry.position
            return entry
        return None

    def _pull(self) -> Control | None:
        """Take the next piece of the past; return the message of a gap before it."""
        hub, replay = self._hub, self._replays[0]
        if not (hub.loaded if replay.fresh else hub.knows(replay.after)):
            hub.waiting.add(self)
            return None
        lost = {
            topic
            for topic in replay.topics
            if not replay.fresh and replay.after < hub.history.floor(kind_of(topic))
        }
        replay.fresh = False
        found, replay.after = hub.history.after(replay.after, replay.topics, PIECE)
        self._piece.extend(found)
        if len(found) < PIECE:  # no more: from here on they come by the queue
            self._replays.popleft()
            hub.join(self, replay.topics)
        return gap_of(lost) if lost else None


def _is_of(entry: Entry, topics: set[str]) -> bool:
    return entry.topic in topics or (entry.kind == SENSORS and EVERY_SENSOR in topics)


def gap_of(topics: set[str]) -> Control:
    """Return the message that says that events of these stored topics may be missing."""
    return Control(Gap(topics=sorted({shown_name(topic) for topic in topics})))
