"""The circuit breaker as a state machine, on a clock that the tests hold."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chassis.http.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from chassis.testing import FakeClock

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def fail(breaker, times=1):
    for _ in range(times):
        with breaker.acquire() as permit:
            permit.failure()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def breaker(clock, changes):
    return CircuitBreaker(
        failures=5,
        reset_seconds=60,
        clock=clock,
        on_change=lambda old, new: changes.append((old, new)),
    )


def test_opens_after_the_fifth_failure_in_a_row(breaker):
    """Four failures leave it closed; the fifth opens it and calls are refused."""
    fail(breaker, 4)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN
    with pytest.raises(BreakerOpenError) as refused:
        breaker.acquire()
    assert refused.value.retry_after == 60


def test_a_success_begins_the_count_again(breaker):
    """Failures count only in a row."""
    for _ in range(3):
        fail(breaker, 4)
        with breaker.acquire() as permit:
            permit.success()
    assert breaker.state is CLOSED


def test_half_open_lets_exactly_one_probe_through(breaker, clock, changes):
    """After the reset time one call passes, the others are refused; its success closes it."""
    fail(breaker, 5)
    clock.advance(59.9)
    with pytest.raises(BreakerOpenError):
        breaker.acquire()
    clock.advance(0.1)
    probe = breaker.acquire()
    for _ in range(10):
        with pytest.raises(BreakerOpenError):
            breaker.acquire()
    with probe:
        probe.success()
    assert breaker.state is CLOSED
    assert changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


def test_a_failed_probe_opens_it_for_the_whole_time_again(breaker, clock):
    """The reset time begins at the probe's failure."""
    fail(breaker, 5)
    clock.advance(60)
    fail(breaker)
    assert breaker.state is OPEN
    clock.advance(59)
    with pytest.raises(BreakerOpenError):
        breaker.acquire()
    clock.advance(1)
    breaker.acquire()


def test_a_probe_without_a_verdict_gives_its_turn_away(breaker, clock):
    """A cancelled probe does not wedge the breaker: the next call probes."""
    fail(breaker, 5)
    clock.advance(60)
    with pytest.raises(KeyboardInterrupt), breaker.acquire():
        raise KeyboardInterrupt
    assert breaker.state is HALF_OPEN
    with breaker.acquire() as permit:
        permit.success()
    assert breaker.state is CLOSED


def test_calls_from_before_a_change_have_no_say(breaker, clock):
    """A slow call that fails after the breaker closed again does not count; nor does a success."""
    old = [breaker.acquire() for _ in range(6)]
    fail(breaker, 5)
    with old[0]:
        old[0].success()
    assert breaker.state is OPEN
    clock.advance(60)
    with breaker.acquire() as permit:
        permit.success()
    for permit in old[1:]:
        with permit:
            permit.failure()
    assert breaker.state is CLOSED


def test_only_the_first_verdict_counts(breaker):
    """A permit speaks once."""
    with breaker.acquire() as permit:
        for _ in range(10):
            permit.failure()
    assert breaker.state is CLOSED


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, verdicts and time; checked against a plain model of the promise."""

    LIMIT = 3
    RESET = 10

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.changes = []
        self.breaker = CircuitBreaker(
            failures=self.LIMIT,
            reset_seconds=self.RESET,
            clock=self.clock,
            on_change=lambda old, new: self.changes.append((old, new)),
        )
        self.permits = []
        self.opened_at = None

    @rule()
    def call(self):
        """A call passes when closed; when open only after the reset time, and then alone."""
        before = self.breaker.state
        probes = [permit for permit, era in self.permits if era == len(self.changes)]
        refused = None
        try:
            permit = self.breaker.acquire()
        except BreakerOpenError as error:
            refused = error
        if refused is not None:
            assert before is not CLOSED
            assert 0 < refused.retry_after <= self.RESET
            if before is OPEN:
                assert self.clock.monotonic() < self.opened_at + self.RESET
            else:
                assert len(probes) == 1
            return
        if before is OPEN:
            assert self.clock.monotonic() >= self.opened_at + self.RESET
        if before is HALF_OPEN:
            assert not probes
        self.permits.append((permit, len(self.changes)))

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), verdict=st.sampled_from(["success", "failure", "none"]))
    def end(self, data, verdict):
        """A call ends; only calls of the present era may change the state."""
        index = data.draw(st.integers(0, len(self.permits) - 1))
        permit, era = self.permits.pop(index)
        before, changes = self.breaker.state, len(self.changes)
        with permit:
            if verdict != "none":
                getattr(permit, verdict)()
        if era != changes or verdict == "none":
            assert len(self.changes) == changes
        elif before is HALF_OPEN:
            assert self.breaker.state is (CLOSED if verdict == "success" else OPEN)
        if len(self.changes) > changes and self.breaker.state is OPEN:
            self.opened_at = self.clock.monotonic()

    @rule(seconds=st.sampled_from([0.1, 1, 5, 9.9, 10, 100]))
    def wait(self, seconds):
        """Time alone changes nothing until somebody asks."""
        state = self.breaker.state
        self.clock.advance(seconds)
        assert self.breaker.state is state

    @invariant()
    def moves_are_legal(self):
        """Closed -> open -> half-open -> closed or open, and nothing else."""
        legal = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (HALF_OPEN, OPEN)}
        assert set(self.changes) <= legal
        assert all(a[1] is b[0] for a, b in zip(self.changes, self.changes[1:], strict=False))

    def teardown(self):
        """From any state, once all calls have ended, it recovers: it cannot be wedged."""
        for permit, _ in self.permits:
            with permit:
                pass
        self.clock.advance(self.RESET)
        with self.breaker.acquire() as permit:
            permit.success()
        assert self.breaker.state is CLOSED


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
