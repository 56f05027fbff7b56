"""The time a request may still take, known to everything that works for it.

A caller sends `X-Request-Timeout-Ms`, the milliseconds it will still wait. The request middleware
turns that into a `Deadline` and sets it for the task; peers and waits look at it.
"""

from __future__ import annotations

import re
from contextvars import ContextVar, Token
from typing import NamedTuple

from chassis.clock import Clock

HEADER = "X-Request-Timeout-Ms"

_milliseconds = re.compile(rb"[0-9]{1,9}").fullmatch


class Deadline(NamedTuple):
    """A moment on the monotonic clock, in seconds. A tuple, because each request makes one."""

    at: float

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """Return the deadline that is `seconds` from now."""
        return cls(clock.monotonic() + seconds)

    def remaining(self, clock: Clock) -> float:
        """Return the seconds left, never below zero."""
        return max(self.at - clock.monotonic(), 0.0)


_current: ContextVar[Deadline | None] = ContextVar("chassis_deadline", default=None)


def set_deadline(deadline: Deadline | None) -> Token[Deadline | None]:
    """Set the deadline of the current task and what it starts; undo it by `reset_deadline`."""
    return _current.set(deadline)


def reset_deadline(token: Token[Deadline | None]) -> None:
    """Put back what `set_deadline` replaced."""
    _current.reset(token)


def current_deadline() -> Deadline | None:
    """Return the deadline of the request being served, or None where there is none."""
    return _current.get()


def remaining(clock: Clock) -> float | None:
    """Return the seconds that the current request has left, or None when nothing limits it."""
    deadline = _current.get()
    return None if deadline is None else deadline.remaining(clock)


def parse_budget(header: bytes | None, *, cap: float) -> float:
    """Return the budget in seconds that the header value grants, at most `cap`.

    A missing or malformed value is ignored and gives `cap`: it is a hint, and a request is not
    worse for a bad hint. Zero is well-formed and means that the caller no longer waits.
    """
    if header is None or not _milliseconds(header):
        return cap
    return min(int(header) / 1000, cap)
