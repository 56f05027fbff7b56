"""The whole platform on one PostgreSQL server, with two processes of orders on one database."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.testing.postgres import PostgresServer
from scripts import topology
from scripts.local.ports import pick_free
from tests.local.platform_handle import eventually
from tests.system.harness import Shop
from tests.system.load import Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

WAITING = 40
KILLS = 3


@pytest.fixture
def shop(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Shop]:
    """The platform with a database for each service on the server; dropped afterwards."""
    mine = f"t{uuid.uuid4().hex[:12]}"
    template = postgres_server.url(f"{mine}_{{service}}")
    try:
        shop = Shop.open(tmp_path / "home", DATABASE_URL_TEMPLATE=template)
        try:
            yield shop
        finally:
            shop.close()
    finally:
        for service in topology.load():
            if service.database:
                postgres_server.drop_database(postgres_server.url(f"{mine}_{service.name}"))


def total(shop: Shop, url: str, name: str, **labels: str) -> float:
    """The sum of a metric over the series that have these labels, at one process."""
    found = 0.0
    for line in shop.get(f"{url}/metrics").text.splitlines():
        match = re.fullmatch(rf"{name}\{{(.*?)\}} (\S+)(?: #.*)?", line)
        if match and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[1])).items():
            found += float(match[2])
    return found


async def test_orders_on_postgresql(shop: Shop) -> None:
    """The order path; two relays that share an outbox; kill -9 with a second process beside."""
    item, buyers = shop.item(100_000), shop.buyers(4)
    first = shop.order(buyers[0], item, 2)
    assert (first.status_code, first.json()["status"]) == (201, "confirmed")
    cancelled = shop.call("POST", f"{first.headers['Location']}/cancel", who=buyers[0])
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    shop.settle(buyers)
    assert shop.stock(item)["available"] == 100_000

    [port] = pick_free(1)
    with shop.second("orders", port) as second:
        urls = [shop.url("orders"), second.url]
        loads = [Load(url, buyers, [item]) for url in urls]

        # Two relays, one outbox: what piles up while notifications is away is delivered once.
        with shop.outage("notifications"):
            for load in loads:
                await load.run(4, lambda: False, limit=WAITING // 2)
            shop.settle_states(buyers)
            # Who streams the orders is told at once: only the notifications wait.
            eventually(lambda: shop.outbox()["pending"] == WAITING, 30)
            before = [
                total(shop, url, "outbox_deliveries_total", outcome="delivered") for url in urls
            ]
            retried = sum(
                total(shop, url, "outbox_deliveries_total", outcome="retry") for url in urls
            )
        states = shop.assert_adds_up(buyers, {item: 100_000})
        assert states == {"confirmed": WAITING, "cancelled": 1}
        after = [total(shop, url, "outbox_deliveries_total", outcome="delivered") for url in urls]
        delivered = [now - then for now, then in zip(after, before, strict=True)]
        assert sum(delivered) == WAITING, delivered
        arrived = total(
            shop, shop.url("notifications"), "http_requests_total", method="POST", route="/events"
        )
        retries = sum(total(shop, url, "outbox_deliveries_total", outcome="retry") for url in urls)
        # Each event arrives once; only a try that failed is made again.
        assert WAITING <= arrived <= WAITING + retries - retried, (arrived, retries, retried)

        # kill -9 of one while both work; the other finishes what it began.
        killed = asyncio.Event()

        async def killer() -> None:
            try:
                for _ in range(KILLS):
                    await loads[0].more(5)
                    os.kill(shop.pid("orders"), signal.SIGKILL)
            finally:
                killed.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(killer())
            for load in loads:
                tasks.create_task(load.run(4, killed.is_set, limit=1000))
        shop.recover()
        states = shop.assert_adds_up(buyers, {item: 100_000})
        placed = [each for load in loads for each in load.placed]
        assert len({each.order_id for each in placed}) == len(placed)
        assert {each.order_id for each in placed} | {first.json()["id"]} == set(
            shop.orders_of(buyers)
        )
        assert states == {"confirmed": len(placed), "cancelled": 1}
    print(
        f"\ntwo relays delivered {delivered} of {WAITING}, {arrived:g} arrived; "
        f"{KILLS} kills, {len(placed)} orders, answers {dict(loads[0].seen + loads[1].seen)}"
    )
