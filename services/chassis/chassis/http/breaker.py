"""A circuit breaker: stop calling a peer that keeps failing, then try it with one call.

Closed: calls pass; `failures` in a row open it. Open: calls are refused for `reset_seconds`.
Half-open: one probe passes and the others are refused; its success closes the breaker, its failure
opens it again. A probe without a verdict (cancelled, cut short by the caller's deadline) gives its
turn to the next call. A call that began before the last change of state cannot change it again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from types import TracebackType
from typing import Self

from chassis.clock import Clock

PROBE_RETRY_AFTER = 1.0


class BreakerState(IntEnum):
    """The states, with the values of the metric `circuit_breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerOpenError(Exception):
    """The call is refused. `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(f"the circuit breaker is open for {retry_after:.1f} s more")


class Permit:
    """Leave to make one call. Give a verdict inside the `with` block, or none to abstain."""

    __slots__ = ("_breaker", "_done", "_generation")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._generation = generation
        self._done = False

    def success(self) -> None:
        """Say that the peer works."""
        if not self._done:
            self._done = True
            self._breaker._succeeded(self._generation)  # noqa: SLF001  (one mechanism in two classes)

    def failure(self) -> None:
        """Say that the peer failed."""
        if not self._done:
            self._done = True
            self._breaker._failed(self._generation)  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._done:
            self._done = True
            self._breaker._abstained(self._generation)  # noqa: SLF001


class CircuitBreaker:
    """The breaker of one peer in one process. For one event loop; it never waits.

    Args:
        failures: how many failures in a row open it.
        reset_seconds: how long it stays open before a probe.
        clock: its monotonic time is used.
        on_change: told (old state, new state) on each transition.
    """

    def __init__(
        self,
        *,
        failures: int,
        reset_seconds: float,
        clock: Clock,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
    ) -> None:
        self._limit = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._generation = 0

    @property
    def state(self) -> BreakerState:
        """The state; an open breaker becomes half-open when a call asks after the reset time."""
        return self._state

    def acquire(self) -> Permit:
        """Return the leave to call, to be used as a context manager at once.

        Raises:
            BreakerOpenError: the peer must not be called now.
        """
        if self._state is BreakerState.OPEN:
            left = self._opened_at + self._reset_seconds - self._clock.monotonic()
            if left > 0:
                raise BreakerOpenError(left)
            self._move(BreakerState.HALF_OPEN)
        if self._state is BreakerState.HALF_OPEN:
            if self._probing:
                raise BreakerOpenError(PROBE_RETRY_AFTER)
            self._probing = True
        return Permit(self, self._generation)

    def half_open(self) -> None:
        """Let the next call probe now, if the breaker is open.

        For background work that paces its tries by itself: it finds out that a peer is back
        before the reset time is over, for everybody.
        """
        if self._state is BreakerState.OPEN:
            self._move(BreakerState.HALF_OPEN)

    def _succeeded(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._move(BreakerState.CLOSED)

    def _failed(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self._limit:
            self._opened_at = self._clock.monotonic()
            self._move(BreakerState.OPEN)

    def _abstained(self, generation: int) -> None:
        if generation == self._generation:
            self._probing = False

    def _move(self, state: BreakerState) -> None:
        old, self._state = self._state, state
        self._generation += 1
        self._failures = 0
        self._probing = False
        if self._on_change is not None:
            self._on_change(old, state)
