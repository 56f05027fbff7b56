"""A peer is really gone: its process is stopped and its port refuses. Orders go on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.local.platform_handle import eventually
from tests.system.harness import Shop, problem

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_inventory_down_at_order_time(shop: Shop) -> None:
    """202 and pending while inventory is gone; after its return confirmed by itself, told once."""
    item, [buyer] = shop.item(10), shop.buyers(1)
    with shop.outage("inventory"):
        answers = [shop.order(buyer, item, 2) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
        assert {answer.json()["status"] for answer in answers} == {"pending"}
        assert {answer.json()["total"]["amount"] for answer in answers} == {"25.00"}
        read = shop.call("GET", answers[0].headers["Location"], who=buyer)
        assert read.json()["status"] == "pending"
        assert problem(shop.call("GET", f"/v1/stock/{item}", who=buyer), 503)
    back = time.monotonic()
    for answer in answers:
        assert shop.order_settled(buyer, answer.json()["id"], 30) == "confirmed"
    took = time.monotonic() - back
    assert shop.assert_adds_up([buyer], {item: 10}) == {"confirmed": 3}
    assert shop.stock(item)["available"] == 4
    told = shop.call("GET", "/v1/notifications", who=buyer).json()["items"]
    assert {each["data"]["order_id"] for each in told} == {a.json()["id"] for a in answers}
    print(f"\n3 orders confirmed {took:.1f} s after inventory was ready again")


def test_inventory_comes_back_without_the_stock(shop: Shop) -> None:
    """202 while inventory is gone, too little stock when it is back: rejected, and told so once."""
    item, [buyer] = shop.item(1), shop.buyers(1)
    with shop.outage("inventory"):
        answer = shop.order(buyer, item, 2)
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    order_id = answer.json()["id"]
    assert shop.order_settled(buyer, order_id, 30) == "rejected"
    # Answered at once: the answer is all that the buyer is told.
    assert problem(shop.order(buyer, item, 3), 409)
    assert shop.assert_adds_up([buyer], {item: 1}) == {"rejected": 2}
    [told] = shop.call("GET", "/v1/notifications", who=buyer).json()["items"]
    assert (told["kind"], told["data"]["order_id"]) == ("order.rejected", order_id)
    assert told["data"]["reason"]["code"] == "insufficient-stock"
    assert f"{item}: 1 of 2 left" in told["body"]


def test_notifications_down_for_a_while(shop: Shop) -> None:
    """Orders are confirmed at once all the same; afterwards each buyer is told exactly once."""
    item, buyers = shop.item(50), shop.buyers(2)
    with shop.outage("notifications"):
        for number in range(12):
            answer = shop.order(buyers[number % 2], item)
            assert (answer.status_code, answer.json()["status"]) == (201, "confirmed")
        # Who streams the orders is there and was told: only the notifications wait.
        eventually(lambda: shop.outbox()["pending"] == 12, 20)
        eventually(lambda: shop.metric("orders", "outbox_pending") == 12, 20)
        assert shop.told(buyers) == {}
    back = time.monotonic()
    shop.settle(buyers)
    took = time.monotonic() - back
    states = shop.assert_adds_up(buyers, {item: 50})
    assert states == {"confirmed": 12}
    assert shop.metric("orders", "outbox_dead_letters") == 0
    print(f"\n12 notifications {took:.1f} s after the return")


def test_auth_down(shop: Shop) -> None:
    """Valid tokens go on working, at the gateway and in services; keys cannot be exchanged: 503."""
    item, [buyer] = shop.item(10), shop.buyers(1)
    made = shop.call("POST", "/v1/keys", who=buyer, json={"name": "t", "scopes": ["orders:read"]})
    assert made.status_code == 201, made.text
    key = {"X-API-Key": made.json()["key"]}
    assert shop.call("GET", "/v1/orders", headers=key).status_code == 200
    # A service that just started has to get its own token once.
    assert shop.order(buyer, item).status_code == 201
    with shop.outage("auth"):
        for _ in range(3):
            assert shop.order(buyer, item).status_code == 201
        assert shop.call("GET", "/v1/notifications", who=buyer).status_code == 200
        refused = shop.call("GET", "/v1/orders", headers=key)
        assert problem(refused, 503)
        assert refused.headers["Retry-After"]
        assert problem(shop.call("POST", "/v1/token", data={"grant_type": "password"}), 503)
    assert shop.assert_adds_up([buyer], {item: 10}) == {"confirmed": 4}
    eventually(lambda: shop.call("GET", "/v1/orders", headers=key).status_code == 200, 20)


def test_services_started_while_auth_is_down_recover_by_themselves(shop: Shop) -> None:
    """They are ready without auth, refuse what they cannot verify with 503, and then go on."""
    item, [buyer] = shop.item(10), shop.buyers(1)
    with shop.outage("auth"):
        for name in ("orders", "inventory"):
            shop.restart(name, signal.SIGKILL)
        unknown = shop.order(buyer, item)
        assert problem(unknown, 503)
        assert unknown.headers["Retry-After"]
        started = shop.pid("orders")
    back = time.monotonic()
    answer = eventually(
        lambda: a if (a := shop.order(buyer, item)).status_code != 503 else None, 40
    )
    took = time.monotonic() - back
    assert answer.status_code in {201, 202}, answer.text
    assert shop.pid("orders") == started
    assert shop.assert_adds_up([buyer], {item: 10}) == {"confirmed": 1}
    print(f"\norders works again {took:.1f} s after auth was ready")
