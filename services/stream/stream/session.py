"""What clients may ask of a stream, whatever carries it."""

from __future__ import annotations

from collections.abc import Collection

from chassis.clock import Clock
from stream.entries import Control
from stream.hub import Hub
from stream.messages import Error, Subscribed, Unsubscribed
from stream.positions import AHEAD_SECONDS, Position
from stream.subscriber import Subscriber
from stream.topics import stored_name


class Refused(Exception):  # noqa: N818  (no fault of the program)
    """A message was not taken; `error` says why."""

    def __init__(self, error: Error) -> None:
        self.error = error
        super().__init__(error.detail)


class Session:
    """The topics of one client."""

    def __init__(
        self, hub: Hub, subscriber: Subscriber, subject: str, clock: Clock, *, most_topics: int
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._subject = subject
        self._clock = clock
        self._most_topics = most_topics

    def subscribe(self, topics: Collection[str], last_event_id: str | None) -> None:
        """Send these topics from now on, or what came after an event first.

        Raises:
            Refused: too many topics, or no event id of ours.
        """
        stored = {stored_name(topic, self._subject) for topic in topics}
        wanted = self._subscriber.wanted
        if len(wanted | stored) > self._most_topics:
            detail = f"a stream takes {self._most_topics} topics"
            raise Refused(Error(code="too-many-topics", detail=detail))
        after = self._position(last_event_id)
        if last_event_id is None:
            stored -= wanted  # it gets them already
        else:
            self._leave(stored)
        self._subscriber.say(
            Control(Subscribed(topics=sorted(topics), last_event_id=str(after)), position=after)
        )
        if last_event_id is None and self._hub.loaded:
            self._hub.join(self._subscriber, stored)
        elif stored:
            # The history hands over to the present without a gap, and waits while the log was never
            # read.
            self._subscriber.replay(stored, after, fresh=last_event_id is None)

    def unsubscribe(self, topics: Collection[str]) -> None:
        """Send these topics no more."""
        self._leave({stored_name(topic, self._subject) for topic in topics})
        self._subscriber.say(Control(Unsubscribed(topics=sorted(topics))))

    def _leave(self, stored: set[str]) -> None:
        self._subscriber.forget(stored)
        self._hub.leave(self._subscriber, stored & self._subscriber.topics)

    def _position(self, last_event_id: str | None) -> Position:
        now = self._clock.now().timestamp()
        if last_event_id is None:
            return self._hub.head if self._hub.loaded else Position(int(now * 1000), 0)
        try:
            found = Position.parse(last_event_id)
        except ValueError as error:
            raise Refused(Error(code="bad-event-id", detail=str(error))) from None
        if found.milliseconds / 1000 > now + AHEAD_SECONDS:
            raise Refused(Error(code="bad-event-id", detail="this event has not happened yet"))
        return found
