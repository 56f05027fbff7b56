"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count


class FakeClock:
    """A `chassis.clock.Clock` whose time moves only by `advance`, or by sleeping when `auto`.

    It begins at the real time, in whole seconds, so that tokens issued by the real clock are
    valid; give `start` for a fixed date.

    Attributes:
        auto: when true, `sleep` moves the clock itself and returns at once.
        slept: every duration asked of `sleep`, in seconds, in order.
    """

    def __init__(self, start: datetime | None = None, *, auto: bool = False) -> None:
        self._start = (start or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._changed = asyncio.Event()
        self.auto = auto
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return the held wall time, aware and in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds advanced so far, from an arbitrary origin."""
        return 1_000.0 + self._elapsed

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by `seconds`; zero or less only gives way."""
        self.slept.append(seconds)
        if self.auto:
            self.advance(max(seconds, 0.0))
        if self.auto or seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        self._changed.set()
        await future

    def advance(self, seconds: float) -> None:
        """Move time forward and wake the sleepers that are due; they run when the caller awaits.

        Raises:
            ValueError: for a negative duration, because monotonic time never goes back.
        """
        if seconds < 0:
            raise ValueError("a clock never goes back")
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def wait_for_sleepers(self, number: int = 1, *, within: float = 30.0) -> None:
        """Wait (really, at most `within` seconds) until `number` tasks sleep on this clock."""
        async with asyncio.timeout(within):
            while self.sleepers < number:
                self._changed.clear()
                await self._changed.wait()

    async def settle(self, rounds: int = 20) -> None:
        """Let woken tasks run: give way to the event loop a few times."""
        for _ in range(rounds):
            await asyncio.sleep(0)
