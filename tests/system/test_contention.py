"""Many clients at the same moment: the last units are sold once, and one key is one order."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter

import httpx2
import pytest

from tests.system.harness import Shop, lines
from tests.system.load import Load, client

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


async def test_200_concurrent_buyers_for_50_units(shop: Shop) -> None:
    """Exactly 50 confirmed, 150 refused for want of stock, none left, the ledger adds up."""
    item, buyers = shop.item(50), shop.buyers(10)
    load = Load(shop.url(), buyers, [item])
    began = time.monotonic()
    # Overloaded, a service may answer 503 with Retry-After: the buyer asks again with the same key.
    async with client(200) as http, asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(load.place(http, buyers[n % 10], item, str(uuid.uuid4())))
            for n in range(200)
        ]
    took = time.monotonic() - began
    answers = Counter(task.result().status for task in asked)
    states = shop.assert_adds_up(buyers, {item: 50})
    assert states == {"confirmed": 50, "rejected": 150}, load.seen
    # 202: the order outlived its request, and ended as the stock said.
    assert answers[201] <= 50, answers
    assert answers[409] <= 150, answers
    stock = shop.stock(item)
    assert (stock["on_hand"], stock["held"], stock["available"]) == (0, 0, 0)
    print(f"\n200 buyers in {took:.1f} s: {dict(load.seen)}, states {dict(states)}")


async def test_one_idempotency_key_50_times_at_once(shop: Shop) -> None:
    """One order; each request gets the first answer, or 409 with Retry-After and then it."""
    item, [buyer] = shop.item(100), shop.buyers(1)
    headers = {**buyer.headers, "Idempotency-Key": str(uuid.uuid4())}
    url = f"{shop.url()}/v1/orders"
    waited = Counter[int]()

    async def ask(http: httpx2.AsyncClient) -> httpx2.Response:
        end = time.monotonic() + 60
        while True:
            answer = await http.post(url, json=lines(item, 3), headers=headers)
            waited[answer.status_code] += 1
            if answer.status_code != 409:
                return answer
            assert answer.json()["type"] == "urn:slipway:problem:idempotency-in-progress"
            assert time.monotonic() < end
            await asyncio.sleep(int(answer.headers["Retry-After"]))  # as it is told to

    async with client(50) as http, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(http)) for _ in range(50)]
    answers = [task.result() for task in asked]
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1, waited
    assert answers[0].status_code in {201, 202}
    assert len({answer.headers["Location"] for answer in answers}) == 1
    firsts = [answer for answer in answers if "Idempotency-Replayed" not in answer.headers]
    assert len(firsts) == 1
    assert list(shop.orders_of([buyer])) == [answers[0].json()["id"]]
    assert shop.assert_adds_up([buyer], {item: 100}) == {"confirmed": 1}
    assert shop.stock(item)["available"] == 97
    print(f"\n50 requests with one key: {dict(waited)}")
