"""The log of a single process, in its memory: for a laptop and for tests.

It ends with the process, and who comes back after that is told of the gap.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from chassis.clock import Clock
from stream.entries import Draft, Entry
from stream.hub import Hub
from stream.log import Stored
from stream.positions import Position
from stream.topics import KINDS

_KEYS = 100_000
_TICKETS = 10_000


class MemoryLog:
    """Takes events and publishes them at once; the history is the hub's."""

    def __init__(self, hub: Hub, clock: Clock, *, dedupe_seconds: float) -> None:
        self._hub = hub
        self._clock = clock
        self._dedupe_seconds = dedupe_seconds
        self._turn = asyncio.Lock()
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._last = Position(self._now(), 0)
        for kind in KINDS:
            hub.load(kind, [], self._last)
        hub.go_live(self._last)

    async def append(self, drafts: Sequence[Draft]) -> Stored:
        """Store events and offer them to this process's clients."""
        now = self._clock.monotonic()
        async with self._turn:  # publishing gives way in between, and positions keep their order
            fresh = [draft for draft in drafts if not draft.key or self._is_new(draft.key, now)]
            await self._hub.publish(
                [Entry(self._next(), draft.topic, draft.body, draft.trace) for draft in fresh]
            )
        return Stored(len(fresh), len(drafts) - len(fresh))

    async def keep(self, name: str, value: str, seconds: int) -> None:
        """Keep a value for one `take`."""
        self._kept[name] = (value, self._clock.monotonic() + seconds)
        while len(self._kept) > _TICKETS:
            self._kept.popitem(last=False)

    async def take(self, name: str) -> str | None:
        """Return a value that was kept, once."""
        value, ends = self._kept.pop(name, ("", 0.0))
        return value if value and self._clock.monotonic() < ends else None

    async def run(self) -> None:
        """Wait: nothing has to be fetched."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing."""

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _next(self) -> Position:
        now = self._now()
        last = self._last
        self._last = (
            Position(now, 0)
            if now > last.milliseconds
            else Position(last.milliseconds, last.number + 1)
        )
        return self._last

    def _is_new(self, key: str, now: float) -> bool:
        seen = self._seen
        while seen and (len(seen) > _KEYS or next(iter(seen.values())) <= now):
            seen.popitem(last=False)
        if key in seen:
            return False
        seen[key] = now + self._dedupe_seconds
        return True
