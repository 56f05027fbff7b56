"""Deadlines: parsing what a caller grants, and the context that carries it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.http.deadline import (
    Deadline,
    current_deadline,
    parse_budget,
    remaining,
    reset_deadline,
    set_deadline,
)
from chassis.testing import FakeClock


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(b"250", 0.25), (b"15000", 15.0), (b"999999999", 15.0), (b"0", 0.0), (None, 15.0)],
)
def test_a_budget_is_read_and_capped(header, seconds):
    """Milliseconds become seconds, and the service's own limit is the cap."""
    assert parse_budget(header, cap=15.0) == seconds


@pytest.mark.parametrize("header", [b"", b"-1", b"1.5", b"abc", b"1e3", b"+5", b" 5", b"9" * 10])
def test_a_malformed_budget_is_ignored(header):
    """A bad hint changes nothing."""
    assert parse_budget(header, cap=15.0) == 15.0


@given(header=st.binary(max_size=30))
def test_any_bytes_give_a_budget_within_the_cap(header):
    """Whatever a client sends, the budget is sane."""
    assert 0.0 <= parse_budget(header, cap=3.0) <= 3.0


def test_what_remains_shrinks_to_zero():
    """Time passes; the remainder never goes below zero."""
    clock = FakeClock()
    deadline = Deadline.after(5, clock)
    clock.advance(2)
    assert deadline.remaining(clock) == 3
    clock.advance(100)
    assert deadline.remaining(clock) == 0


async def test_a_deadline_belongs_to_its_task():
    """Concurrent requests each see their own deadline, and none sees another's afterwards."""
    clock = FakeClock()

    async def request(seconds):
        token = set_deadline(Deadline.after(seconds, clock))
        await asyncio.sleep(0)
        inner = await asyncio.create_task(child())
        reset_deadline(token)
        return inner, current_deadline()

    async def child():
        return remaining(clock)

    assert await asyncio.gather(request(1), request(2)) == [(1, None), (2, None)]
    assert remaining(clock) is None
