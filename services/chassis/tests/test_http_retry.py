"""The retry budget, the waits, and Retry-After."""

from __future__ import annotations

import random
from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.http.retry import RetryBudget, full_jitter, parse_retry_after, whole_seconds
from chassis.testing import FakeClock


def test_retries_stay_at_the_ratio_of_the_calls():
    """A thousand failing calls get a fifth of it in retries, and the small floor."""
    budget = RetryBudget(0.2, FakeClock(), floor=3)
    retried = 0
    for _ in range(1000):
        budget.deposit()
        retried += budget.withdraw()
    assert 200 <= retried <= 203


def test_a_peer_that_is_called_rarely_gets_retries_back():
    """The floor refills with time, so a quiet peer is not without retries for ever."""
    clock = FakeClock()
    budget = RetryBudget(0.0, clock, floor=3, window=10)
    assert [budget.withdraw() for _ in range(4)] == [True, True, True, False]
    clock.advance(3)
    assert not budget.withdraw()
    clock.advance(1)
    assert budget.withdraw()
    clock.advance(1000)
    assert [budget.withdraw() for _ in range(4)] == [True, True, True, False]


def test_savings_are_bounded():
    """A long quiet time does not save up a storm of retries."""
    budget = RetryBudget(0.2, FakeClock())
    for _ in range(10_000):
        budget.deposit()
    retried = 0
    while budget.withdraw():
        retried += 1
    assert retried == 20


@given(attempt=st.integers(0, 60), seed=st.integers(0, 1000))
def test_jitter_is_full_and_capped(attempt, seed):
    """A wait lies between nothing and the doubled base, and never above one second."""
    wait = full_jitter(attempt, random.Random(seed))
    assert 0 <= wait <= min(1.0, 0.05 * 2**attempt)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), (" 12 ", 12), ("999999999999", 86400), (None, None), ("", None)],
)
def test_retry_after_in_seconds(value, seconds):
    """Whole seconds are read, absurd ones are capped."""
    assert parse_retry_after(value, FakeClock()) == seconds


@pytest.mark.parametrize("value", ["soon", "-3", "1.5", "1,5", "²", "Fri, 99 Foo 2020", "\x00"])
def test_retry_after_nonsense_is_ignored(value):
    """What is neither form counts as absent."""
    assert parse_retry_after(value, FakeClock()) is None


def test_retry_after_as_a_date():
    """An HTTP date is a moment; one that has passed is zero."""
    clock = FakeClock()
    for ahead, seconds in [(90, 90), (-90, 0)]:
        moment = clock.now() + timedelta(seconds=ahead)
        assert parse_retry_after(format_datetime(moment, usegmt=True), clock) == seconds


def test_header_value_is_rounded_up():
    """A client never comes back too early."""
    assert [whole_seconds(x) for x in (0, 0.2, 1.0, 1.01)] == ["1", "1", "1", "2"]
