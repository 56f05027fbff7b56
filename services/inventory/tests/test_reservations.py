"""Reservations: their states, and that every step may be repeated."""

import pytest

from inventory.main import create_app


@pytest.fixture
def reach(put_stock, reserve, confirm, release, fake_clock):
    """A function that brings reservation `r1` of 3 of 5 mugs into a state."""

    async def go(state):
        await put_stock(mug=5)
        if state == "tombstone":
            await release("r1")
            return
        assert (await reserve("r1", seconds=60, mug=3)).status_code == 201
        if state in {"confirmed", "returned"}:
            await confirm("r1")
        if state in {"released", "returned"}:
            await release("r1")
        if state == "expired":
            fake_clock.advance(60)

    return go


async def test_units_are_held_then_taken(*, client, put_stock, reserve, confirm, level, fake_clock):
    await put_stock(mug=5, pan=2)
    held = await reserve("r1", seconds=60, mug=3, pan=1)
    assert held.status_code == 201
    assert held.headers["Location"] == "/v1/reservations/r1"
    body = held.json()
    assert (body["id"], body["state"]) == ("r1", "held")
    lines = [{"item_id": "mug", "quantity": 3}, {"item_id": "pan", "quantity": 1}]
    assert body["lines"] == lines
    assert await level("mug") == (5, 3)
    assert await level("pan") == (2, 1)
    fake_clock.advance(1)
    confirmed = await confirm("r1")
    assert confirmed.status_code == 200
    assert (confirmed.json()["state"], confirmed.json()["lines"]) == ("confirmed", lines)
    assert await level("mug") == (2, 0)
    assert await level("pan") == (1, 0)
    assert (await client.get("/v1/reservations/r1")).json() == confirmed.json()


async def test_all_lines_are_held_or_none(put_stock, reserve, level, client, problem):
    await put_stock(mug=5, pan=1)
    refused = await reserve("r1", mug=2, pan=2, wok=1)
    body = problem(refused, 409, "insufficient-stock")
    assert body["lines"] == [
        {"item_id": "pan", "requested": 2, "available": 1},
        {"item_id": "wok", "requested": 1, "available": 0},
    ]
    assert await level("mug") == (5, 0)
    assert await level("pan") == (1, 0)
    problem(await client.get("/v1/reservations/r1"), 404)
    # A refusal leaves nothing behind: the same id may try again.
    await put_stock(pan=2)
    assert (await reserve("r1", mug=2, pan=2)).status_code == 201


# What each request does to a reservation of 3 of 5 mugs in each state: the status, the state or
# the kind of problem, and then (on hand, held).
TABLE = {
    ("reserve", "held"): (200, "held", (5, 3)),
    ("reserve", "confirmed"): (200, "confirmed", (2, 0)),
    ("reserve", "released"): (409, "reservation-released", (5, 0)),
    ("reserve", "returned"): (409, "reservation-released", (5, 0)),
    ("reserve", "expired"): (409, "reservation-expired", (5, 0)),
    ("reserve", "tombstone"): (409, "reservation-released", (5, 0)),
    ("other", "held"): (409, "reservation-conflict", (5, 3)),
    ("other", "confirmed"): (409, "reservation-conflict", (2, 0)),
    ("other", "released"): (409, "reservation-conflict", (5, 0)),
    ("other", "tombstone"): (409, "reservation-released", (5, 0)),
    ("confirm", "held"): (200, "confirmed", (2, 0)),
    ("confirm", "confirmed"): (200, "confirmed", (2, 0)),
    ("confirm", "released"): (409, "reservation-released", (5, 0)),
    ("confirm", "returned"): (409, "reservation-released", (5, 0)),
    ("confirm", "expired"): (409, "reservation-expired", (5, 0)),
    ("confirm", "tombstone"): (409, "reservation-released", (5, 0)),
    ("release", "held"): (200, "released", (5, 0)),
    ("release", "confirmed"): (200, "returned", (5, 0)),
    ("release", "released"): (200, "released", (5, 0)),
    ("release", "returned"): (200, "returned", (5, 0)),
    ("release", "tombstone"): (200, "released", (5, 0)),
}


@pytest.mark.parametrize(("request_name", "state"), TABLE)
async def test_each_request_in_each_state_twice(
    *, request_name, state, reach, reserve, confirm, release, level, problem, adds_up
):
    """Repeating any request changes nothing more, which is what makes a saga recoverable."""
    status, outcome, expected = TABLE[request_name, state]
    await reach(state)
    send = {
        "reserve": lambda: reserve("r1", seconds=60, mug=3),
        "other": lambda: reserve("r1", seconds=60, mug=4),
        "confirm": lambda: confirm("r1"),
        "release": lambda: release("r1"),
    }[request_name]
    for _ in range(2):
        answer = await send()
        if status == 200:
            assert answer.status_code == 200, answer.text
            assert answer.json()["state"] == outcome
        else:
            problem(answer, 409, outcome)
        assert await level("mug") == expected
    await adds_up()


async def test_a_late_reserve_after_its_release_holds_nothing(reserve, release, put_stock, level):
    """The network may deliver a saga's compensation before the step it compensates."""
    await put_stock(mug=5)
    tombstone = await release("r1")
    assert (tombstone.status_code, tombstone.json()["state"]) == (200, "released")
    assert tombstone.json()["lines"] == []
    assert (await reserve("r1", mug=3)).status_code == 409
    assert await level("mug") == (5, 0)


async def test_an_unknown_reservation_is_404(client, confirm, problem):
    problem(await client.get("/v1/reservations/none"), 404)
    problem(await confirm("none"), 404)


async def test_the_worker_expires_what_ran_out(
    *, put_stock, reserve, client, level, fake_clock, adds_up, eventually
):
    """It runs on the service's clock, leaves alone what is not due or confirmed, and counts."""
    await put_stock(mug=10)
    await reserve("short", seconds=60, mug=1)
    await reserve("long", seconds=120, mug=2)
    await reserve("sold", seconds=60, mug=3)
    await client.post("/v1/reservations/sold/confirm")
    fake_clock.advance(59)
    await fake_clock.wait_for_sleepers(2)
    assert await level("mug") == (7, 3)
    fake_clock.advance(1)

    async def expired():
        # The worker may have looked at the clock just before it moved; the next look is due then.
        fake_clock.advance(0.5)
        return await level("mug") == (7, 2)

    await eventually(expired)
    states = [
        (await client.get(f"/v1/reservations/{name}")).json()["state"]
        for name in ("short", "long", "sold")
    ]
    assert states == ["expired", "held", "confirmed"]
    metrics = (await client.get("/metrics")).text
    assert 'inventory_reservations_total{outcome="expired"} 1.0' in metrics
    await adds_up()


@pytest.fixture
def no_worker(settings):
    """Settings with a worker that looks so rarely that it never comes in a test."""
    return settings.model_copy(update={"expiry_poll_seconds": 10**9})


async def test_expiry_does_not_wait_for_the_worker(
    *, no_worker, app_client, fake_clock, token_issuer, writer
):
    """What ran out frees its units for the next buyer at once, and cannot be confirmed."""

    def body(name):
        line = {"item_id": "mug", "quantity": 3}
        return {"id": name, "lines": [line], "expires_in_seconds": 60}

    headers = token_issuer.authorization("orders", "inventory:reserve")
    async with app_client(create_app(no_worker, clock=fake_clock), headers=headers) as client:
        await client.put("/v1/stock/mug", json={"on_hand": 5}, headers=writer)
        await client.post("/v1/reservations", json=body("r1"))
        await fake_clock.wait_for_sleepers(2)
        assert (await client.post("/v1/reservations", json=body("r2"))).status_code == 409
        fake_clock.advance(60)
        assert (await client.get("/v1/reservations/r1")).json()["state"] == "expired"
        assert (await client.get("/v1/stock/mug")).json()["held"] == 3
        assert (await client.post("/v1/reservations", json=body("r2"))).status_code == 201
        assert (await client.get("/v1/stock/mug")).json()["held"] == 3
        late = await client.post("/v1/reservations/r1/confirm")
        assert late.json()["type"] == "urn:slipway:problem:reservation-expired"
        released = await client.post("/v1/reservations/r1/release")
        assert (released.status_code, released.json()["state"]) == (200, "expired")


@pytest.mark.parametrize(
    "body",
    [
        {"lines": [{"item_id": "mug", "quantity": 1}]},
        {"id": "", "lines": [{"item_id": "mug", "quantity": 1}]},
        {"id": "r 1", "lines": [{"item_id": "mug", "quantity": 1}]},
        {"id": "r1\x00", "lines": [{"item_id": "mug", "quantity": 1}]},
        {"id": "r" * 65, "lines": [{"item_id": "mug", "quantity": 1}]},
        {"id": "r1", "lines": [{"item_id": "mug", "quantity": 1}], "expires_in_seconds": 0},
        {"id": "r1", "lines": [{"item_id": "mug", "quantity": 1}], "expires_in_seconds": 86401},
        {"id": "r1", "lines": [{"item_id": "mug", "quantity": 1}], "ttl": 5},
    ],
)
async def test_bad_reservations_are_refused(client, problem, body):
    problem(await client.post("/v1/reservations", json=body), 422, "validation")


async def test_what_happens_is_counted(
    *, client, put_stock, reserve, confirm, release, fake_clock, eventually
):
    """Outcomes count once, however often a request is repeated; the gauges are sums."""
    await put_stock(mug=5, pan=0)
    for _ in range(2):
        await reserve("r1", mug=5)
    for _ in range(2):
        await reserve("r2", mug=1)
    for _ in range(2):
        await confirm("r1")
    for _ in range(2):
        await release("r1")
    await reserve("r3", mug=5)
    await release("r3")
    await reserve("r4", mug=1)
    text = (await client.get("/metrics")).text
    counts = {"held": 3, "insufficient": 2, "confirmed": 1, "returned": 1, "released": 1}
    for outcome, number in counts.items():
        assert f'inventory_reservations_total{{outcome="{outcome}"}} {number}.0' in text
    assert "mug" not in text

    async def counted():
        fake_clock.advance(15)
        text = (await client.get("/metrics")).text
        gauges = {"items": 2, "items_out_of_stock": 1, "reservations_held": 1}
        gauges |= {'units{state="free"}': 4, 'units{state="held"}': 1}
        return all(f"inventory_{name} {number}.0" in text for name, number in gauges.items())

    await eventually(counted)
