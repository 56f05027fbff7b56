"""`confirm` on a reservation: units are taken in one call, and all else stays as with two."""

import asyncio

import pytest

from inventory.audit import audit


@pytest.fixture
def take(client):
    """Return a function that reserves and confirms units of items in one call."""

    async def send(reservation_id, **lines):
        items = [{"item_id": item, "quantity": quantity} for item, quantity in lines.items()]
        body = {"id": reservation_id, "lines": items, "confirm": True}
        return await client.post("/v1/reservations", json=body)

    return send


async def test_units_are_taken_at_once(*, take, put_stock, level, database):
    """One call confirms; repeating it, or confirming again, takes nothing more."""
    await put_stock(mug=5)
    answers = [await take("r1", mug=3) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert {answer.json()["state"] for answer in answers} == {"confirmed"}
    assert await level("mug") == (2, 0)
    assert (await audit(database)).mismatches == []


async def test_a_hold_is_taken_too(*, take, reserve, put_stock, level, database):
    """An earlier hold under the same id becomes the confirmed reservation."""
    await put_stock(mug=5)
    await reserve("r1", mug=3)
    assert (await take("r1", mug=3)).json()["state"] == "confirmed"
    assert await level("mug") == (2, 0)
    assert (await audit(database)).mismatches == []


async def test_what_is_held_cannot_be_taken(*, take, reserve, put_stock, level):
    """Units promised to others are not available."""
    await put_stock(mug=5)
    await reserve("r1", mug=3)
    answer = await take("r2", mug=3)
    assert answer.status_code == 409
    assert answer.json()["lines"] == [{"item_id": "mug", "requested": 3, "available": 2}]
    assert await level("mug") == (5, 3)


async def test_it_can_be_returned(*, take, release, put_stock, level, database):
    """Releasing brings the units back, once; the id then takes nothing any more."""
    await put_stock(mug=5)
    await take("r1", mug=3)
    for _ in range(2):
        assert (await release("r1")).json()["state"] == "returned"
    assert (await take("r1", mug=3)).status_code == 409
    assert await level("mug") == (5, 0)
    assert (await audit(database)).mismatches == []


async def test_a_release_that_came_first_wins(*, take, release, put_stock, level):
    """A request that arrives behind its own compensation takes nothing."""
    await put_stock(mug=5)
    await release("r1")
    assert (await take("r1", mug=3)).status_code == 409
    assert await level("mug") == (5, 0)


async def test_nothing_is_oversold(*, take, put_stock, level, database):
    """Many at once for few units: exactly the units that there are, are taken."""
    await put_stock(mug=7)
    answers = await asyncio.gather(*(take(f"r{number}", mug=1) for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 7 + [409] * 13
    assert await level("mug") == (0, 0)
    assert (await audit(database)).mismatches == []
