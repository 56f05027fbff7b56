"""The open streams of one process: how many there may be, and what is done to all of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chassis.problems import Problem
from chassis.runtime import Runtime
from chassis.security import Principal
from stream.entries import Control
from stream.messages import Expiring, Goodbye
from stream.metrics import StreamMetrics
from stream.settings import Settings
from stream.subscriber import RESTART, Ending

if TYPE_CHECKING:
    from stream.connection import Connection

CAPACITY_TYPE = "urn:slipway:problem:too-many-streams"
EXPIRED = 4401
"""Close code: the token is missing, bad or at its end. 4000 to 4999 are for applications."""

EXPIRING_SECONDS = 60.0
RETRY_SECONDS = 2.0
_RETRY_MILLISECONDS = (500, 2500)
"""After a goodbye: not at once, when other replicas may be about to end as well."""

_TICK_SECONDS = 1.0
_DRAIN_TICK_SECONDS = 0.05
_GRACE_SECONDS = 5.0
_REASONS = {401: "credentials", 403: "scope"}


class Connections:
    """Counts, limits and looks after the streams of one process."""

    def __init__(self, runtime: Runtime, settings: Settings, metrics: StreamMetrics) -> None:
        self._runtime = runtime
        self._settings = settings
        self._metrics = metrics
        self._users: Counter[str] = Counter()
        self._total = self._waiting = 0
        self.open: set[Connection] = set()

    def refusal(self) -> Problem | None:
        """Return why no further stream is opened here, or None."""
        if self._runtime.lifecycle.draining:
            return self.refuse("draining", "This process is about to end; connect again.")
        if self._total >= self._settings.connections:
            return self.refuse("capacity", "This process has as many streams as it takes.")
        return None

    def refuse(self, reason: str, detail: str, status: int = 503) -> Problem:
        """Count a refusal; return its problem."""
        self._metrics.refused[reason].inc()
        return Problem(
            status,
            detail=detail,
            type=CAPACITY_TYPE,
            headers={"Retry-After": str(int(RETRY_SECONDS))},
        )

    def counted(self, problem: Problem) -> Problem:
        """Count a refusal for the credentials of a client; return its problem."""
        if problem.status in _REASONS:
            self._metrics.refused[_REASONS[problem.status]].inc()
        return problem

    @contextmanager
    def place(self, transport: str) -> Iterator[None]:
        """Take one of the places of this process for the time of the block."""
        self._total += 1
        self._metrics.connections[transport].inc()
        # The server lets these end by themselves before it closes what is left.
        self._runtime.lifecycle.streams += 1
        try:
            yield
        finally:
            self._total -= 1
            self._metrics.connections[transport].dec()
            self._runtime.lifecycle.streams -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let somebody say who it is for the time of the block.

        Apart from the places, which so many could take who never say it.

        Raises:
            Problem: 503, a tenth as many as there are places do so already.
        """
        if self._waiting >= max(self._settings.connections // 10, 1):
            raise self.refuse("capacity", "Too many have yet to send their token; send it at once.")
        self._waiting += 1
        self._runtime.lifecycle.streams += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._runtime.lifecycle.streams -= 1

    @contextmanager
    def of_user(self, principal: Principal) -> Iterator[None]:
        """Take one of the places of a user for the time of the block.

        Raises:
            Problem: 429, the user has too many streams here.
        """
        user = principal.subject
        if self._users[user] >= self._settings.connections_per_user:
            limit = self._settings.connections_per_user
            raise self.refuse("user_limit", f"You have {limit} open streams already.", status=429)
        self._users[user] += 1
        try:
            yield
        finally:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]

    # The loops.

    async def keep(self) -> None:
        """Each second: heartbeats, tokens that end, clients that take nothing. Until cancelled."""
        clock = self._runtime.clock
        while True:
            await clock.sleep(_TICK_SECONDS)
            wall, now = clock.now().timestamp(), clock.monotonic()
            deepest = 0
            for connection in list(self.open):
                deepest = max(deepest, connection.subscriber.depth)
                self._look_after(connection, wall, now)
            self._metrics.depth.set(deepest)

    def _look_after(self, connection: Connection, wall: float, now: float) -> None:
        if connection.ended_at is not None:
            if now - connection.ended_at >= _GRACE_SECONDS:
                connection.cut()
            return
        left = connection.expires_at - wall
        if left <= 0:
            end(connection, Ending(EXPIRED, "the access token is expired"), now)
        elif left <= EXPIRING_SECONDS and not connection.warned:
            connection.warned = True
            connection.subscriber.say(Control(Expiring(seconds=max(int(left), 1))))
        elif connection.subscriber.ending is not None:
            connection.ended_at = now
        connection.beat(now)

    async def drain(self) -> None:
        """When the process is told to end, send every client away, spread over a time."""
        clock, lifecycle = self._runtime.clock, self._runtime.lifecycle
        while not lifecycle.draining:
            await clock.sleep(_DRAIN_TICK_SECONDS)
        settings = self._settings
        spread = min(settings.goodbye_spread_seconds, settings.drain_seconds / 2)
        began = clock.monotonic()
        due = sorted((random.uniform(0, spread), id(each), each) for each in self.open)  # noqa: S311
        self._runtime.log.info("streams.draining", streams=len(due), seconds=spread)
        for after, _, connection in due:
            wait = began + after - clock.monotonic()
            if wait > 0:
                await clock.sleep(wait)
            self._send_away(connection)
        while True:  # those that were being opened
            for connection in list(self.open):
                self._send_away(connection)
            await clock.sleep(_DRAIN_TICK_SECONDS)

    def _send_away(self, connection: Connection) -> None:
        if connection.subscriber.ending is None:
            retry = random.randint(*_RETRY_MILLISECONDS)  # noqa: S311  (jitter)
            words = Control(Goodbye(retry_ms=retry))
            ending = Ending(RESTART, "this process ends; connect again", words)
            end(connection, ending, self._runtime.clock.monotonic())


def end(connection: Connection, ending: Ending, now: float) -> None:
    """Tell a stream to end."""
    connection.subscriber.end(ending)
    connection.ended_at = now
