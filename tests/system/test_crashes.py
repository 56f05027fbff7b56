"""The orders service is killed with -9 while it works. Nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import httpx2
import pytest

from tests.local.platform_handle import alive
from tests.system.harness import Shop
from tests.system.load import Load, Placed, client

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

# Each restart costs about two seconds of a core; more kills for a longer look.
KILLS = int(os.environ.get("SLIPWAY_TEST_KILLS", "8"))
ORDERS_PER_KILL = 15
CLIENTS = 12


async def kill_under_load(shop: Shop, load: Load, kills: int) -> int:
    """Kill the orders process again and again at random moments of its work; the kills made."""
    done = asyncio.Event()

    async def killer() -> int:
        try:
            for number in range(kills):
                await load.more(random.randint(1, 2 * ORDERS_PER_KILL))
                # Anywhere inside the few milliseconds that one order takes.
                await asyncio.sleep(random.uniform(0, 0.05))
                os.kill(_orders_pid(shop), signal.SIGKILL)
                print(f"kill {number + 1}: {len(load.placed)} orders answered, {dict(load.seen)}")
        finally:
            done.set()
        return kills

    async with asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(killer())
        tasks.create_task(load.run(CLIENTS, done.is_set, limit=5000))
    return killing.result()


def _orders_pid(shop: Shop) -> int:
    pid = shop.platform.process("orders")["pid"]
    assert pid, "answers came, so it runs"
    assert alive(pid)
    return int(pid)


async def assert_one_order_per_key(shop: Shop, load: Load) -> None:
    """Every key again: the same order as before. And there are no orders without a key."""
    assert len({placed.order_id for placed in load.placed}) == len(load.placed)
    assert {placed.order_id for placed in load.placed} == set(shop.orders_of(load.buyers))
    states = {order_id: state for order_id, (state, _, _) in shop.orders_of(load.buyers).items()}

    async def again(http: httpx2.AsyncClient, placed: Placed) -> None:
        async with gate:
            repeated = await load.place(http, placed.buyer, placed.item, placed.key)
        assert repeated.order_id == placed.order_id, (placed, repeated)
        # 202 may be repeated as it was; 201 and 409 are final.
        expected = {201: "confirmed", 409: "rejected"}
        for status in (placed.status, repeated.status):
            if status in expected:
                assert states[placed.order_id] == expected[status], (placed, repeated)

    gate = asyncio.Semaphore(CLIENTS)
    async with client(CLIENTS) as http, asyncio.TaskGroup() as tasks:
        for placed in load.placed:
            tasks.create_task(again(http, placed))


async def test_orders_killed_many_times_under_load(shop: Shop) -> None:
    """After `kill -9` at random moments: each accepted order once, the stock right, each told."""
    plenty, scarce = shop.item(100_000), shop.item(KILLS * 2)
    load = Load(shop.url(), shop.buyers(8), [plenty, scarce])
    began = time.monotonic()
    kills = await kill_under_load(shop, load, KILLS)
    ended = time.monotonic()
    shop.recover()
    states = shop.assert_adds_up(load.buyers, {plenty: 100_000, scarce: KILLS * 2})
    settled = time.monotonic()
    assert set(states) <= {"confirmed", "rejected"}
    assert states.total() >= len(load.placed)
    await assert_one_order_per_key(shop, load)
    retried = sum(placed.tries > 1 for placed in load.placed)
    print(
        f"\n{kills} kills, {len(load.placed)} orders ({dict(states)}), {retried} retried by their "
        f"clients, answers {dict(load.seen)}; load {ended - began:.0f} s, "
        f"at rest {settled - ended:.1f} s later"
    )
