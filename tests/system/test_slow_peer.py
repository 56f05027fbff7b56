"""A peer that takes requests and does not answer: frozen by SIGSTOP, its connections stay open."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.local.platform_handle import eventually
from tests.system.harness import Shop, lines, log_lines, problem

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

INLINE_SECONDS = 4.0  # orders waits for its peers no longer than this before it answers 202
SLACK_SECONDS = 3.0  # for a busy machine


def breaker_changes(shop: Shop, since: int) -> list[tuple[str, str]]:
    """What the breaker of orders for items did, from the log of the process."""

    def mine(entry: dict[str, Any]) -> bool:
        return entry.get("event") == "circuit breaker changed" and entry.get("peer") == "items"

    found = log_lines(shop.platform.home / "logs" / "orders.log", mine)
    return [(entry["old"], entry["new"]) for entry in found[since:]]


def test_a_frozen_peer(shop: Shop) -> None:
    """Answers within the budget; the breaker opens, probes half-open, and closes after the end."""
    item, [buyer] = shop.item(50), shop.buyers(1)
    assert shop.order(buyer, item).status_code == 201
    eventually(lambda: shop.metric("orders", "circuit_breaker_state", peer="items") == 0)
    before = len(breaker_changes(shop, 0))
    times, ids = [], []
    with shop.frozen("items"):
        while shop.metric("orders", "circuit_breaker_state", peer="items") != 2:
            began = time.monotonic()
            answer = shop.order(buyer, item)
            times.append(time.monotonic() - began)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
            assert len(ids) <= 10, "the breaker never opened"
        assert min(times) < INLINE_SECONDS + SLACK_SECONDS, times  # any may meet a stall

        # Open: the next order does not wait for items at all.
        fast = []
        for _ in range(3):
            began = time.monotonic()
            answer = shop.order(buyer, item)
            assert answer.status_code == 202, answer.text
            fast.append(time.monotonic() - began)
            ids.append(answer.json()["id"])
        assert min(fast) < INLINE_SECONDS, fast

        # Somebody probes, half-open, and finds items still frozen: open again.
        eventually(lambda: ("half_open", "open") in breaker_changes(shop, before), 60)

        # A budget of the caller is kept, whatever the peer does: straight to a frozen service's
        # client with 1 s to live.
        began = time.monotonic()
        short = shop.call(
            "POST",
            "/v1/orders",
            at="orders",
            who=buyer,
            json=lines(item),
            headers={"X-Request-Timeout-Ms": "1500"},
        )
        took = time.monotonic() - began
        assert short.status_code in {202, 504}, short.text
        assert took < 30, took
        if short.status_code == 504:
            problem(short, 504)
    back = time.monotonic()
    for order_id in ids:
        assert shop.order_settled(buyer, order_id) == "confirmed"
    recovered = time.monotonic() - back
    eventually(lambda: shop.metric("orders", "circuit_breaker_state", peer="items") == 0)
    changes = breaker_changes(shop, before)
    assert changes[0] == ("closed", "open"), changes
    assert changes[-1] == ("half_open", "closed"), changes
    assert shop.order(buyer, item).status_code == 201
    assert set(shop.assert_adds_up([buyer], {item: 50})) == {"confirmed"}
    print(
        f"\n{len(times)} answers of 202 until the breaker opened, the slowest {max(times):.1f} s; "
        f"open: {max(fast):.2f} s; 1.5 s budget: {short.status_code} after {took:.1f} s; "
        f"{len(ids)} orders confirmed {recovered:.1f} s after the thaw; "
        f"breaker {changes}"
    )
