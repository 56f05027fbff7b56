"""The log of events, as the rest of the service sees it: one in memory, or one in Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stream.entries import Draft


class LogUnavailableError(Exception):
    """The log does not answer. What was to be stored may be stored or not: send it again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of drafts: `new` were stored, `repeated` were there already."""

    new: int
    repeated: int


class Log(Protocol):
    """Stores events in one order and hands them, in that order, to the hub of each process."""

    async def append(self, drafts: Sequence[Draft]) -> Stored:
        """Store events, all or none; those whose key is known are left out.

        Raises:
            LogUnavailableError: the log does not answer.
        """
        ...

    async def keep(self, name: str, value: str, seconds: int) -> None:
        """Keep a small value for one `take`, for so many seconds.

        Raises:
            LogUnavailableError: the log does not answer.
        """
        ...

    async def take(self, name: str) -> str | None:
        """Return a value that was kept, and forget it; None if there is none.

        Raises:
            LogUnavailableError: the log does not answer.
        """
        ...

    async def run(self) -> None:
        """Hand entries to the hub until cancelled."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
