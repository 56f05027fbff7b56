"""Peers fail for real: refused, slow, resetting, answering 500, losing answers. Orders do not."""

import logging

import anyio
import httpx2
import pytest

from chassis.testing import app_client

STOCK = 20


async def test_inventory_away_at_order_time(world):
    """202 and pending while inventory refuses connections; confirmed by itself once it is back."""
    async with world.orders() as client:
        world.inventory.refuse()
        answer = await client.post("/v1/orders", json=world.lines(desk=2))
        order = answer.json()
        assert (answer.status_code, order["status"]) == (202, "pending")
        assert order["total"] == {"amount": "25.00", "currency": "EUR"}
        again = await client.post("/v1/orders", json=world.lines(desk=1))
        assert again.status_code == 202
        world.inventory.open()
        for placed in (order, again.json()):
            assert (await world.settled(client, placed["id"]))["status"] == "confirmed"
        assert await world.available("desk") == STOCK - 3
        assert await world.counted(client, "confirmed") == 2

        async def both() -> bool:
            return len(await world.told("u1")) >= 2

        await world.eventually(both)
        assert len(await world.told("u1")) == 2


async def test_the_log_names_the_order_whose_saga_was_put_off(world, caplog):
    """By `order_id`, which the runbook tells to look for."""
    async with world.orders() as client:
        world.inventory.refuse()
        with caplog.at_level(logging.INFO):
            order = (await client.post("/v1/orders", json=world.lines(desk=1))).json()
        world.inventory.open()
        assert (await world.settled(client, order["id"]))["status"] == "confirmed"
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    told = [line for line in lines if line["event"] == "saga.put_off"]
    assert told
    assert {line["order_id"] for line in told} == {order["id"]}


async def test_an_open_breaker_does_not_delay_the_recovery(world):
    """The breaker stays open for 60 s, but the worker finds out within its own backoff."""
    async with world.orders(breaker_failures=2, peer_retries=0, breaker_reset_seconds=60) as client:
        world.inventory.refuse()
        ids = []
        for _ in range(6):
            answer = await client.post("/v1/orders", json=world.lines(desk=1))
            assert answer.status_code == 202
            ids.append(answer.json()["id"])
        # Open, or half open just while the worker tries; not closed.
        assert (
            'circuit_breaker_state{peer="inventory"} 0' not in (await client.get("/metrics")).text
        )
        world.inventory.open()
        for order_id in ids:
            assert (await world.settled(client, order_id))["status"] == "confirmed"
        assert 'circuit_breaker_state{peer="inventory"} 0' in (await client.get("/metrics")).text
        placed = await client.post("/v1/orders", json=world.lines(desk=1))
        assert placed.status_code == 201


async def test_items_away_at_order_time(world):
    """Without prices an order is accepted all the same, and priced when the catalogue is back."""
    async with world.orders() as client:
        world.items.refuse()
        answer = await client.post("/v1/orders", json=world.lines(desk=2))
        assert (answer.status_code, answer.json()["total"]) == (202, None)
        unknown = await client.post("/v1/orders", json=world.lines(unicorn=1))
        assert unknown.status_code == 202
        world.items.open()
        order = await world.settled(client, answer.json()["id"])
        assert (order["status"], order["total"]["amount"]) == ("confirmed", "25.00")
        rejected = await world.settled(client, unknown.json()["id"])
        assert (rejected["status"], rejected["reason"]["code"]) == ("rejected", "unknown-items")

        async def both() -> bool:
            return len(await world.told("u1")) >= 2

        await world.eventually(both)
        assert sorted(await world.told("u1")) == [
            ("order.confirmed", order["id"]),
            ("order.rejected", rejected["id"]),
        ]


async def test_an_accepted_order_that_is_rejected_tells_its_owner(world):
    """202, then too little stock: one notification with the reason and the short line."""
    async with world.orders() as client:
        world.inventory.refuse()
        answer = await client.post("/v1/orders", json=world.lines(desk=STOCK + 1, lamp=1))
        assert answer.status_code == 202
        world.inventory.open()
        order = await world.settled(client, answer.json()["id"])
        assert (order["status"], order["reason"]["code"]) == ("rejected", "insufficient-stock")
        await world.eventually(lambda: world.told("u1"))

        async def released() -> bool:
            return await world.reservation(order["id"]) == "released"

        await world.eventually(released)
        told = await world.http.get(
            f"{world.urls['notifications']}/v1/notifications", headers=world.user("u1")
        )
        [notification] = told.json()["items"]
        assert (notification["kind"], notification["data"]["order_id"]) == (
            "order.rejected",
            order["id"],
        )
        assert f"Desk: {STOCK} of {STOCK + 1} left" in notification["body"]
        assert await world.published() == ["order.rejected"]


@pytest.mark.parametrize("fault", ["500", "reset", "garbage", "hang", "unexpected"])
async def test_inventory_misbehaves(world, fault):
    """Whatever nonsense comes back is no answer: 202, and confirmed once it makes sense again."""
    quick = {"peer_timeout_seconds": 0.3} if fault == "hang" else {}
    async with world.orders(**quick) as client:
        match fault:
            case "500":
                world.inventory.respond(500)
            case "reset":
                world.inventory.reset()
            case "garbage":
                world.inventory.garbage()
            case "hang":
                world.inventory.hang()
            case "unexpected":
                world.inventory.respond(418, json={"type": "about:blank"})
        answer = await client.post("/v1/orders", json=world.lines(desk=2))
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        world.inventory.open()
    async with world.orders() as client:
        order = await world.settled(client, answer.json()["id"])
        assert order["status"] == "confirmed"
        assert await world.available("desk") == STOCK - 2


async def test_a_slow_peer_costs_a_client_the_inline_time_only(world):
    """The request answers 202 when its time is spent, although the peer is still at work."""
    async with world.orders(saga_inline_seconds=0.5) as client:
        world.inventory.slow(30, times=1)
        with anyio.fail_after(20):
            answer = await client.post("/v1/orders", json=world.lines(desk=2))
        assert answer.status_code == 202
        assert (await world.settled(client, answer.json()["id"]))["status"] == "confirmed"
        assert await world.available("desk") == STOCK - 2


async def test_a_client_with_little_time_gets_its_answer(world):
    """A spent budget is no error: the order stands and is finished without the client."""
    async with world.orders() as client:
        answer = await client.post(
            "/v1/orders", json=world.lines(desk=2), headers={"X-Request-Timeout-Ms": "300"}
        )
        assert answer.status_code == 202
        order = await world.settled(client, answer.json()["id"])
        assert (order["status"], order["total"]["amount"]) == ("confirmed", "25.00")


async def test_a_lost_answer_takes_the_stock_once(world):
    """Inventory did its work but its answer was lost: asking again changes nothing."""
    async with world.orders(peer_retries=0) as client:
        world.inventory.lose_answers(times=3)
        answer = await client.post("/v1/orders", json=world.lines(desk=2))
        order = await world.settled(client, answer.json()["id"])
        assert order["status"] == "confirmed"
        assert world.inventory.calls("/v1/reservations") >= 3
        assert await world.available("desk") == STOCK - 2
        assert await world.counted(client, "confirmed") == 1


async def test_notifications_away(world):
    """The order is confirmed without notifications; they are told once, when they are back."""
    async with world.orders() as client:
        world.notifications.refuse()
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        assert order["status"] == "confirmed"
        assert await world.told("u1") == []
        world.notifications.open()
        await world.eventually(lambda: world.told("u1"), within=20)
        assert await world.told("u1") == [("order.confirmed", order["id"])]


async def test_notifications_lose_their_answers(world):
    """A delivery that is repeated because its answer was lost makes no second notification."""
    async with world.orders() as client:
        world.notifications.lose_answers(times=2)
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()

        async def repeated() -> bool:
            return world.notifications.calls("/events") >= 3

        await world.eventually(repeated, within=20)
        assert await world.told("u1") == [("order.confirmed", order["id"])]


async def test_a_pending_order_can_be_cancelled(world):
    """Cancelling wins over a saga that waits for inventory; nothing of the order stays there."""
    async with world.orders() as client:
        world.inventory.refuse()
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        answer = await client.post(f"/v1/orders/{order['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
        world.inventory.open()
        assert (await world.settled(client, order["id"]))["status"] == "cancelled"
        assert await world.available("desk") == STOCK
        assert await world.reservation(order["id"]) == "released"


async def test_a_cancel_keeps_to_the_time_of_its_client(world):
    """Inventory is never given longer than the client of the cancellation will wait."""
    granted: list[int] = []

    async def note(request) -> None:
        if request.path.endswith("/release"):
            granted.append(int(request.headers["x-request-timeout-ms"]))

    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        world.inventory.open(before=note)
        headers = {"X-Request-Timeout-Ms": "3000"}
        answer = await client.post(f"/v1/orders/{order['id']}/cancel", headers=headers)
        assert answer.status_code in (200, 202)
        assert (await world.settled(client, order["id"]))["status"] == "cancelled"
    assert granted
    assert granted[0] < 3000


async def test_an_unpriced_order_is_cancelled_at_once(world):
    """Nothing was asked of inventory, so inventory need not be there."""
    async with world.orders() as client:
        world.items.refuse()
        world.inventory.refuse()
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        answer = await client.post(f"/v1/orders/{order['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_cancel_races_with_confirm(world):
    """The owner cancels while inventory is confirming: the order ends cancelled, stock is back."""
    async with world.orders() as client:
        for moment in ("before", "after"):
            cancelled: list[int] = []

            async def cancel(request, cancelled=cancelled) -> None:
                if request.path == "/v1/reservations" and not cancelled:
                    order = (await client.get("/v1/orders")).json()["items"][0]
                    cancelled.append(0)
                    answer = await client.post(f"/v1/orders/{order['id']}/cancel")
                    cancelled[0] = answer.status_code

            world.inventory.open(**{moment: cancel})
            answer = await client.post("/v1/orders", json=world.lines(desk=2))
            assert answer.status_code == 202, moment
            order = await world.settled(client, answer.json()["id"])
            assert (cancelled, order["status"]) == ([200], "cancelled")
            assert await world.available("desk") == STOCK
        told = await world.told("u1")
        assert "order.confirmed" not in [kind for kind, _ in told]


async def test_a_reservation_that_ended_is_replaced(world):
    """An operator released the reservation of a pending order: the saga takes a new one."""
    async with world.orders(peer_retries=0) as client:
        world.inventory.refuse()
        order = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        url = f"{world.urls['inventory']}/v1/reservations/{order['id']}/release"
        headers = world.issuer.authorization("operator", "inventory:reserve")
        assert (await world.http.post(url, headers=headers)).status_code == 200
        world.inventory.open()
        assert (await world.settled(client, order["id"]))["status"] == "confirmed"
        assert await world.reservation(f"{order['id']}:2") == "confirmed"
        assert await world.available("desk") == STOCK - 2
        await client.post(f"/v1/orders/{order['id']}/cancel")
        assert await world.available("desk") == STOCK


async def test_waiting_has_an_end(world):
    """After the bound an order is rejected with its stock released, and the metric counts it."""
    async with world.orders(saga_give_up_seconds=0.2, peer_retries=0) as client:
        world.inventory.lose_answers(times=1000)  # the reservation exists, but nobody hears of it
        answer = (await client.post("/v1/orders", json=world.lines(desk=2))).json()
        # A busy machine may reach the bound within the request: that answer is a problem.
        found = await world.settled(client, answer.get("id") or answer["order_id"])
        assert (found["status"], found["reason"]["code"]) == ("rejected", "peer-unavailable")
        world.inventory.clear()

        async def returned() -> bool:
            return await world.available("desk") == STOCK

        await world.eventually(returned)
        assert "orders_saga_abandoned_total 1.0" in (await client.get("/metrics")).text


async def test_a_client_that_leaves_gives_the_lease_back(world):
    """A request that is cancelled in the middle of a call leaves an order that anyone may take."""
    blocked = anyio.Event()

    async def block(request) -> None:
        if request.path == "/v1/reservations":
            blocked.set()
            await anyio.sleep(60)

    world.inventory.open(before=block)
    async with world.orders() as client:
        async with anyio.create_task_group() as tasks:

            async def place() -> None:
                await client.post("/v1/orders", json=world.lines(desk=2))

            tasks.start_soon(place)
            await blocked.wait()
            tasks.cancel_scope.cancel()  # the client is gone in the middle of the call
        world.inventory.open()
        order = (await client.get("/v1/orders")).json()["items"][0]
        # The lease lasts 100 s here: only because it was given back can this be quick.
        assert (await world.settled(client, order["id"]))["status"] == "confirmed"
        assert await world.available("desk") == STOCK - 2


async def test_a_key_whose_request_died_answers_from_the_order(world):
    """The retry after a crash takes the claim over and says how the order stands by now."""
    headers = {**world.user("u1"), "Idempotency-Key": "crash"}
    reached = anyio.Event()

    async def block(request) -> None:
        if request.path == "/v1/reservations" and not reached.is_set():
            reached.set()
            await anyio.sleep(60)

    world.inventory.open(before=block)
    async with app_client(world.app(), headers=headers) as client:
        async with anyio.create_task_group() as tasks:

            async def place() -> None:
                await client.post("/v1/orders", json=world.lines(desk=2))

            tasks.start_soon(place)
            await reached.wait()
            tasks.cancel_scope.cancel()
        order = (await client.get("/v1/orders")).json()["items"][0]
        assert (await world.settled(client, order["id"]))["status"] == "confirmed"
        for replayed in (False, True):
            answer = await client.post("/v1/orders", json=world.lines(desk=2))
            assert (answer.status_code, answer.json()["id"]) == (201, order["id"])
            assert ("Idempotency-Replayed" in answer.headers) == replayed
        assert await world.available("desk") == STOCK - 2


@pytest.mark.parametrize("wanted", [2, STOCK + 1], ids=["enough", "short"])
async def test_a_repeat_overtakes_a_slow_request(world, wanted):
    """The repeat is answered 202; whatever the slow one then finds, its buyer hears of it once."""
    reached, go = anyio.Event(), anyio.Event()

    async def block(request) -> None:
        if request.path == "/v1/reservations":
            reached.set()
            await go.wait()

    world.inventory.open(before=block)
    answers: list[httpx2.Response] = []
    async with world.orders() as client:

        async def place() -> None:
            answers.append(
                await client.post(
                    "/v1/orders",
                    json=world.lines(desk=wanted),
                    headers={"Idempotency-Key": "slow"},
                )
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place)
            await reached.wait()
            await place()
            assert [answer.status_code for answer in answers] == [202]
            go.set()
        repeat, slow = (answer.json() for answer in answers)
        enough = wanted <= STOCK
        assert answers[1].status_code == (201 if enough else 409)
        assert (slow["id"] if enough else slow["order_id"]) == repeat["id"]
        await place()
        assert (answers[2].status_code, answers[2].json()) == (202, repeat)
        await world.eventually(lambda: world.told("u1"))
        kind = "order.confirmed" if enough else "order.rejected"
        assert await world.told("u1") == [(kind, repeat["id"])]
        assert await world.available("desk") == STOCK - (wanted if enough else 0)


async def test_the_gauges_show_what_waits(world):
    """While inventory is away, the backlog and its age can be seen at /metrics."""
    async with world.orders() as client:
        world.inventory.refuse()
        await client.post("/v1/orders", json=world.lines(desk=2))

        async def seen() -> bool:
            return "orders_pending 1.0" in (await client.get("/metrics")).text

        await world.eventually(seen, within=20)
        text = (await client.get("/metrics")).text
        age = next(x for x in text.splitlines() if x.startswith("orders_pending_oldest_age"))
        assert float(age.split()[1]) > 0


async def test_a_missing_client_secret_loses_no_order(world):
    """Without credentials of its own the service still accepts; the next, set up well, finishes."""
    async with world.orders(client_secret=None) as client:
        answer = await client.post("/v1/orders", json=world.lines(desk=2))
        assert answer.status_code == 202
    async with world.orders() as client:
        assert (await world.settled(client, answer.json()["id"]))["status"] == "confirmed"
