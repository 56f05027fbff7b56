"""Where an event stands in the log: ids that order all events, as Valkey Streams write them."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_ID = re.compile(r"(\d{1,15})-(\d{1,15})")
AHEAD_SECONDS = 60.0
"""How far the clocks of clients' last event ids may be ahead of ours."""


class Position(NamedTuple):
    """A place in the log: milliseconds since 1970 by the log's clock, and a number in them."""

    milliseconds: int
    number: int

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that `text` names.

        Raises:
            ValueError: it is none.
        """
        found = _ID.fullmatch(text)
        if found is None:
            raise ValueError("no event id; they look like 1767225600000-0")
        return cls(int(found[1]), int(found[2]))


ORIGIN = Position(0, 0)
"""Before every event."""
