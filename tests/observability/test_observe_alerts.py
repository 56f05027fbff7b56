"""Alerts made to fire by real faults, and to resolve, with the rules' own times made shorter."""

from __future__ import annotations

import re

import httpx2
import pytest
import yaml

from observability import rules
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


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_a_service_that_is_away_and_the_orders_that_wait_for_it(watched: Watched) -> None:
    """Inventory is stopped: it is down, orders get stuck, its breaker opens; then all is well."""
    shop = watched.shop
    item, [buyer] = shop.item(200), shop.buyers(1)
    for name in ("ServiceDown", "OrdersStuck", "BreakerOpen"):
        watched.resolves(name)  # nothing of it at first

    def trade() -> None:
        order(shop, buyer, item)

    with shop.outage("inventory"):
        watched.fires("ServiceDown", service="inventory", severity="page", during=trade)
        watched.fires("BreakerOpen", service="orders", peer="inventory", during=trade)
        watched.fires("OrdersStuck", service="orders", severity="page", during=trade)
        assert watched.firing("ServiceDown", service="items") is None
    watched.resolves("ServiceDown")
    watched.resolves("OrdersStuck")
    watched.resolves("BreakerOpen", during=trade)
    shop.assert_adds_up([buyer], {item: 200})


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_a_slow_peer_opens_the_breaker(watched: Watched) -> None:
    """Items is frozen: it keeps its connections and answers nothing, so calls time out."""
    shop = watched.shop
    item, [buyer] = shop.item(200), shop.buyers(1)
    watched.resolves("BreakerOpen")
    with shop.frozen("items"):
        watched.fires(
            "BreakerOpen", service="orders", peer="items", during=lambda: order(shop, buyer, item)
        )
    watched.resolves("BreakerOpen", during=lambda: order(shop, buyer, item))
    shop.assert_adds_up([buyer], {item: 200})


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_an_outbox_that_fills(watched: Watched) -> None:
    """Notifications is away: orders are confirmed, but nobody is told until it is back."""
    shop = watched.shop
    item, [buyer] = shop.item(20), shop.buyers(1)
    watched.resolves("OutboxStuck")
    with shop.outage("notifications"):
        for _ in range(3):
            assert shop.order(buyer, item).status_code == 201
        watched.fires("OutboxStuck", service="orders", severity="page")
        assert watched.value("outbox_pending") >= 3
    watched.resolves("OutboxStuck")
    shop.assert_adds_up([buyer], {item: 20})


@pytest.mark.system
@pytest.mark.timeout(600)
@needs_prometheus
def test_failures_at_the_gateway_burn_its_budget(watched: Watched) -> None:
    """Items is stopped under requests: the upstream fails, and the SLO of the gateway burns."""
    shop = watched.shop
    watched.resolves("GatewayUpstreamFailures")
    watched.resolves("ErrorBudgetBurn", service="gateway", slo="availability", severity="page")

    def ask() -> None:
        for _ in range(5):
            try:
                shop.call("GET", "/v1/items")
            except httpx2.TransportError as error:
                raise AssertionError("the gateway itself must answer") from error

    with shop.outage("items"):
        watched.fires("GatewayUpstreamFailures", service="items", severity="page", during=ask)
        watched.fires(
            "ErrorBudgetBurn", service="gateway", slo="availability", severity="page", during=ask
        )
        burning = watched.firing("ErrorBudgetBurn", service="gateway", slo="availability")
        assert burning is not None
        assert burning["owner"] == "platform"
    watched.resolves("GatewayUpstreamFailures", during=ask)
    watched.resolves(
        "ErrorBudgetBurn", service="gateway", slo="availability", severity="page", during=ask
    )
