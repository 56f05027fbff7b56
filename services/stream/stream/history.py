"""The last events of each kind, in memory: what those who come back are sent.

Every process holds the same tail of the log. Reconnecting clients cost no question to Valkey, and
are served while it is away.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable
from heapq import merge
from itertools import islice
from operator import attrgetter

from stream.entries import Entry
from stream.positions import ORIGIN, Position
from stream.topics import EVERY_SENSOR, KINDS, SENSORS, Kind, kind_of

_position = attrgetter("position")


class History:
    """A bounded tail of the log for each kind; everything after `floor(kind)` is in it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tails: dict[Kind, deque[Entry]] = {kind: deque() for kind in KINDS}
        self._floors: dict[Kind, Position] = dict.fromkeys(KINDS, ORIGIN)

    def add(self, entry: Entry) -> None:
        """Add the next entry; the oldest of its kind makes room."""
        tail = self._tails[entry.kind]
        tail.append(entry)
        if len(tail) > self._size:
            self._floors[entry.kind] = tail.popleft().position

    def load(self, kind: Kind, entries: Iterable[Entry], floor: Position) -> None:
        """Replace what is held of `kind`; what came at or before `floor` may be missing."""
        tail = deque(entries)
        while len(tail) > self._size:
            floor = tail.popleft().position
        self._tails[kind] = tail
        self._floors[kind] = floor

    def floor(self, kind: Kind) -> Position:
        """Return the position after which nothing of `kind` is missing."""
        return self._floors[kind]

    def after(
        self, position: Position, topics: Collection[str], limit: int
    ) -> tuple[list[Entry], Position]:
        """Return up to `limit` entries of `topics` after `position`, and how far was looked.

        Fewer than `limit` means that there are no more.
        """
        kinds = {kind_of(topic) for topic in topics}
        tails = [self._since(kind, position) for kind in kinds]
        every = EVERY_SENSOR in topics
        found: list[Entry] = []
        for entry in tails[0] if len(tails) == 1 else merge(*tails, key=_position):
            position = entry.position
            if entry.topic in topics or (every and entry.kind == SENSORS):
                found.append(entry)
                if len(found) == limit:
                    break
        return found, position

    def _since(self, kind: Kind, position: Position) -> Iterable[Entry]:
        tail = self._tails[kind]
        return islice(tail, bisect_right(tail, position, key=_position), None)
