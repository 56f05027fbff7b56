"""When a failed call is tried again, and how long to wait before.

A small loop in `Peer` uses these two: stamina waits by the event loop's own time and knows neither
a deadline nor a `Retry-After`, so it would not hold to the chassis clock.
"""

from __future__ import annotations

import math
import random
from datetime import UTC
from email.utils import parsedate_to_datetime

from chassis.clock import Clock

BASE_SECONDS = 0.05
CAP_SECONDS = 1.0
LONGEST_RETRY_AFTER = 86_400.0


class RetryBudget:
    """A token bucket: retries stay at `ratio` of the calls, so they cannot multiply an outage.

    Each call adds `ratio` of a token, each retry takes a whole one. A floor of `floor` tokens,
    refilled over `window` seconds, lets a peer that is called rarely be retried too.
    """

    def __init__(
        self, ratio: float, clock: Clock, *, floor: float = 3.0, window: float = 10.0
    ) -> None:
        self._ratio = ratio
        self._clock = clock
        self._floor = floor
        self._rate = floor / window
        self._cap = max(floor, 100.0 * ratio)
        self._tokens = floor
        self._last = clock.monotonic()

    def deposit(self) -> None:
        """Note one call."""
        self._tokens = min(self._tokens + self._ratio, self._cap)

    def withdraw(self) -> bool:
        """Take leave for one retry; False when the budget is spent."""
        now = self._clock.monotonic()
        if self._tokens < self._floor:
            grown = self._tokens + (now - self._last) * self._rate
            self._tokens = min(grown, self._floor)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def full_jitter(attempt: int, rng: random.Random) -> float:
    """Return the wait in seconds before retry number `attempt` (from 0): full jitter."""
    return rng.uniform(0.0, min(CAP_SECONDS, BASE_SECONDS * 2.0**attempt))


def parse_retry_after(value: str | None, clock: Clock) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110), both forms; None when unusable."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - clock.now()).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def whole_seconds(seconds: float) -> str:
    """Return the value of a `Retry-After` header: whole seconds, rounded up, at least one."""
    return str(max(math.ceil(seconds), 1))
