"""Alerts made to fire by real faults, and to resolve, with the rules' own times made shorter."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx2
import pytest
import yaml

from observability import rules
from tests.observability.faults import crowd, held, stumbling, without_table
from tests.observability.watched import FACTOR, Watched, needs_prometheus, shorten
from tests.system.harness import Buyer, Shop


def test_the_short_rules_are_the_rules() -> None:
    """The same alerts and names; only times differ, and none was forgotten."""
    for file in rules.FOLDER.glob(rules.PATTERN):
        text = file.read_text()
        long, short = yaml.safe_load(text), yaml.safe_load(shorten(text))
        for before, after in zip(long["groups"], short["groups"], strict=True):
            assert after["interval"] == "1s"
            for old, new in zip(before["rules"], after["rules"], strict=True):
                assert {k: v for k, v in old.items() if k not in {"expr", "for"}} == {
                    k: v for k, v in new.items() if k not in {"expr", "for"}
                }
                assert re.findall(r"\[\d+[mhd]\]", new["expr"]) == []
                assert "30 * sum" not in new["expr"]
                assert re.sub(r"\d+[smhd]?", "", old["expr"]) == re.sub(
                    r"\d+[smhd]?", "", new["expr"]
                )
                if old.get("for", "0m") != "0m":
                    assert new["for"].endswith("s")
    assert shorten("groups: [{rules: [{expr: 'a[5m] > 1', for: 2m}]}]").count("10s") == 1
    assert FACTOR == 30


def order(shop: Shop, buyer: Buyer, item: str) -> None:
    """An order that is accepted, now or for later."""
    answer = shop.order(buyer, item)
    assert answer.status_code in {201, 202, 503, 504}, answer.text


BURNING = {"service": "gateway", "slo": "availability", "severity": "page", "window": "1h"}


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_services_that_are_away_and_one_that_hangs(watched: Watched) -> None:
    """Inventory and notifications are stopped, then items is frozen; each alert comes and goes.

    At the same time, because each alert takes its time: nobody is told of the orders, later ones
    get stuck, breakers open, and the gateway's requests for stock fail.
    """
    shop = watched.shop
    item, [buyer] = shop.item(400), shop.buyers(1)
    away = ("ServiceDown", "OrdersStuck", "BreakerOpen", "OutboxStuck", "GatewayUpstreamFailures")
    for name in away:
        watched.resolves(name)  # nothing of it at first
    watched.resolves("ErrorBudgetBurn", **BURNING)

    def trade() -> None:
        order(shop, buyer, item)
        for _ in range(4):
            shop.call("GET", f"/v1/stock/{item}", who=shop.admin)

    with shop.outage("notifications"):
        for _ in range(3):
            assert shop.order(buyer, item).status_code == 201
        with shop.outage("inventory"):
            watched.fires("ServiceDown", service="inventory", severity="page", during=trade)
            assert watched.firing("ServiceDown", service="items") is None
            watched.fires("BreakerOpen", service="orders", peer="inventory", during=trade)
            watched.fires(
                "GatewayUpstreamFailures", service="inventory", severity="page", during=trade
            )
            watched.fires("ErrorBudgetBurn", during=trade, **BURNING)
            burning = watched.firing("ErrorBudgetBurn", **BURNING)
            assert burning is not None
            assert burning["owner"] == "platform"
            watched.fires("OutboxStuck", service="orders", severity="page", during=trade)
            assert watched.value("outbox_pending") >= 3
            watched.fires("OrdersStuck", service="orders", severity="page", during=trade)
    # The peer keeps its connections and answers nothing, so calls time out.
    with shop.frozen("items"):
        watched.fires(
            "BreakerOpen", service="orders", peer="items", during=lambda: order(shop, buyer, item)
        )
    for name in away:
        watched.resolves(name, during=trade)
    watched.resolves("ErrorBudgetBurn", during=trade, **BURNING)
    shop.assert_adds_up([buyer], {item: 400})


@contextmanager
def refused_event(shop: Shop) -> Iterator[None]:
    """An event that the subscriber refuses for good, as a publisher with a fault writes it."""
    path = shop.database("orders")
    columns = "subscriber, type, subject, event, available_at, created_at"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        before = connection.execute(
            f"SELECT {columns} FROM outbox WHERE type = 'order.confirmed' ORDER BY seq DESC"
        ).fetchone()
        subscriber, kind, subject, event, *times = before
        broken = json.loads(event) | {"id": str(uuid.uuid4()), "data": {"owner": 1}}
        connection.execute(
            f"INSERT INTO outbox (id, ordering_key, state, attempts, {columns}) "
            "VALUES (?, ?, 'pending', 0, ?, ?, ?, ?, ?, ?)",
            (broken["id"], broken["id"], subscriber, kind, subject, json.dumps(broken), *times),
        )
        try:
            yield
        finally:
            connection.execute("DELETE FROM outbox WHERE id = ?", (broken["id"],))


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_what_is_slow_refused_or_broken_at_once(watched: Watched) -> None:
    """Five faults side by side, each of another process; every alert names its own."""
    shop = watched.shop
    item, [buyer] = shop.item(10), shop.buyers(1)
    assert shop.order(buyer, item).status_code == 201
    shop.settle([buyer])
    admin = shop.admin  # made before anything is slow
    expected: dict[str, dict[str, str]] = {
        "DatabasePoolExhausted": {"service": "inventory"},
        "LatencyBudgetBurn": {"service": "inventory", "severity": "page", "window": "1h"},
        "EventLoopLagHigh": {"service": "info"},
        "RateLimitStorm": {"service": "gateway"},
        "WorkerRestarting": {"service": "orders", "worker": "outbox-relay"},
    }
    for name, labels in expected.items():
        watched.resolves(name, **labels)
    with refused_event(shop):
        watched.fires("DeadLetters", service="orders", severity="ticket")
    watched.resolves("DeadLetters")

    def put() -> httpx2.Response:
        return shop.call("PUT", f"/v1/stock/{item}", at="inventory", who=admin, json={"on_hand": 9})

    def guess() -> httpx2.Response:
        form = {"grant_type": "password", "username": "nobody@example.org", "password": "wrong"}
        return shop.call("POST", "/v1/token", data=form)

    with (
        held(shop.database("inventory"), seconds=0.5, free=0.05),
        crowd(4, put),
        stumbling(shop.pid("info"), stopped=0.6, running=0.3),
        crowd(2, guess, pause=0.05),
        without_table(shop.database("orders"), "outbox"),
    ):
        watched.each_fires(expected)
    for name, labels in expected.items():
        watched.resolves(name, **labels)
