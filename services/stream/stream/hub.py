"""The hub of one process: the history, who wants which topic, and the fan-out.

The log calls `publish` with entries in the order of their positions, one call after the other.
Taking one entry is synchronous, as is everything that clients do here, so between a look at the
history and joining a topic no event can slip through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.clock import Clock
from stream.entries import Control, Entry
from stream.history import History
from stream.messages import Status
from stream.metrics import StreamMetrics
from stream.positions import ORIGIN, Position
from stream.subscriber import Subscriber, gap_of
from stream.topics import EVERY_SENSOR, SENSORS, Kind, kind_of


class Hub:
    """Takes entries from the log, keeps the last ones, and offers each to who wants it."""

    def __init__(
        self,
        history: History,
        metrics: StreamMetrics,
        clock: Clock,
        tracers: trace.TracerProvider | None = None,
        *,
        burst_messages: int = 64,
        burst_bytes: int = 262_144,
    ) -> None:
        self.history = history
        self.head = ORIGIN
        """The position of the last entry, or the one at which the log was found empty."""

        self.loaded = False
        """The history is what the log says: all kinds were read as far as `head`."""

        self.degraded = True
        self.waiting: set[Subscriber] = set()
        """Who waits for the history to reach the position they ask for."""

        self._everybody: set[Subscriber] = set()
        self._wanted: dict[str, set[Subscriber]] = {}
        self._burst_messages = burst_messages
        self._burst_bytes = burst_bytes
        self._metrics = metrics
        self._clock = clock
        self._tracer = None if tracers is None else tracers.get_tracer("stream")

    # Clients.

    def attach(self, subscriber: Subscriber) -> None:
        """Tell a client from now on how the log is; a degraded one at once."""
        self._everybody.add(subscriber)
        if self.degraded:
            subscriber.say(Control(Status(state="degraded")))

    def detach(self, subscriber: Subscriber) -> None:
        """Forget a client."""
        self._everybody.discard(subscriber)
        self.waiting.discard(subscriber)
        self.leave(subscriber, set(subscriber.topics))

    def join(self, subscriber: Subscriber, topics: Iterable[str]) -> None:
        """Offer a client every event of `topics` from now on."""
        for topic in topics:
            subscriber.topics.add(topic)
            self._wanted.setdefault(topic, set()).add(subscriber)

    def leave(self, subscriber: Subscriber, topics: Iterable[str]) -> None:
        """Offer a client no more events of `topics`."""
        for topic in topics:
            subscriber.topics.discard(topic)
            wanting = self._wanted.get(topic)
            if wanting is not None:
                wanting.discard(subscriber)
                if not wanting:
                    del self._wanted[topic]

    def knows(self, position: Position) -> bool:
        """Say whether the history has come as far as `position`."""
        return self.loaded and position <= self.head

    # The log.

    async def publish(self, entries: Iterable[Entry]) -> None:
        """Take the next entries of the log.

        Of many, a few at once: the clients' writers have their turn in between, so that a burst is
        too much for none that keeps up.
        """
        messages = size = 0
        for entry in entries:
            self.history.add(entry)
            # Never back: of two kinds that are loaded one may be read up to later events.
            self.head = max(self.head, entry.position)
            self._metrics.lag.observe(_age(entry, self._clock.now()))
            self._fan_out(entry)
            if self.waiting:
                self._let_look_again()
            messages, size = messages + 1, size + entry.size
            if messages >= self._burst_messages or size >= self._burst_bytes:
                messages = size = 0
                await asyncio.sleep(0)

    def _fan_out(self, entry: Entry) -> None:
        wanting = self._wanted.get(entry.topic, ())
        for subscriber in wanting:
            subscriber.offer(entry)
        reached = len(wanting)
        if entry.kind == SENSORS:
            for subscriber in self._wanted.get(EVERY_SENSOR, ()):
                if subscriber not in wanting:
                    subscriber.offer(entry)
                    reached += 1
        if entry.trace and self._tracer is not None:
            self._tell(entry, reached)

    def _tell(self, entry: Entry, reached: int) -> None:
        """One span for the delivery to all clients, in the trace of what caused the event."""
        parent = TraceContextTextMapPropagator().extract({"traceparent": entry.trace})
        cause = trace.get_current_span(parent).get_span_context()
        assert self._tracer is not None
        self._tracer.start_span(
            f"deliver {entry.kind}",
            parent,
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(cause)],
            attributes={
                "messaging.operation.type": "process",
                "messaging.message.id": str(entry.position),
                "messaging.destination.name": entry.kind,
                "stream.clients": reached,
            },
        ).end()

    def load(self, kind: Kind, entries: list[Entry], floor: Position) -> None:
        """Take what the log holds of one kind, in place of what was held.

        Until `go_live` nobody is sent the past: of the other kinds older events may be read yet.
        """
        self.loaded = False
        self.history.load(kind, entries, floor)
        if entries:
            self.head = max(self.head, entries[-1].position)

    def lost(self, kind: Kind) -> None:
        """Tell who wants topics of `kind` that events may be missing."""
        for subscriber in self._everybody:
            topics = {topic for topic in subscriber.topics if kind_of(topic) == kind}
            if topics:
                subscriber.say(gap_of(topics))

    def go_live(self, head: Position) -> None:
        """The log was read as far as `head` and answers."""
        self.head = max(self.head, head)
        self.loaded = True
        self._metrics.live.set(1)
        if self.degraded:
            self.degraded = False
            self._say_all(Control(Status(state="live")))
        self._let_look_again()

    def degrade(self) -> None:
        """The log does not answer: events come later."""
        self._metrics.live.set(0)
        if not self.degraded:
            self.degraded = True
            self._say_all(Control(Status(state="degraded")))

    def _say_all(self, control: Control) -> None:
        for subscriber in self._everybody:
            subscriber.say(control)

    def _let_look_again(self) -> None:
        waiting, self.waiting = self.waiting, set()
        for subscriber in waiting:
            subscriber.wake()


def _age(entry: Entry, now: datetime) -> float:
    return max(now.timestamp() - entry.position.milliseconds / 1000, 0.0)
