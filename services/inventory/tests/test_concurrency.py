"""Many buyers at once: nothing is oversold, nobody waits in a circle, everything adds up."""

import asyncio
import random


async def test_200_buyers_of_50_units(reserve, put_stock, level, adds_up):
    """Exactly 50 get one."""
    await put_stock(mug=50)
    answers = await asyncio.gather(*(reserve(f"r{number}", mug=1) for number in range(200)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(409)) == (50, 150)
    assert await level("mug") == (50, 50)
    assert (await adds_up()).movements == 51


async def test_200_buyers_who_confirm_or_give_up(
    *, reserve, confirm, release, put_stock, level, adds_up
):
    """Units that are given up may be sold again; what is confirmed is gone."""
    await put_stock(mug=50)

    async def buy(number):
        name = f"r{number}"
        if (await reserve(name, mug=1 + number % 2)).status_code != 201:
            return 0
        if number % 3 == 0:
            assert (await release(name)).status_code == 200
            return 0
        assert (await confirm(name)).status_code == 200
        return 1 + number % 2

    sold = sum(await asyncio.gather(*(buy(number) for number in range(200))))
    assert sold <= 50
    assert await level("mug") == (50 - sold, 0)
    await adds_up()


async def test_the_same_reservation_50_times_at_once_is_one(reserve, put_stock, level, adds_up):
    await put_stock(mug=5)
    answers = await asyncio.gather(*(reserve("r1", mug=2) for _ in range(50)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 49 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert await level("mug") == (5, 2)
    await adds_up()


async def test_opposite_orders_do_not_deadlock(client, put_stock, adds_up):
    """Lines in any order are locked in one order, whatever the client sends."""
    names = [f"i{number}" for number in range(6)]
    await put_stock(**dict.fromkeys(names, 1000))
    shuffle = random.Random(7)

    async def buy(number):
        lines = [{"item_id": name, "quantity": 1} for name in names]
        lines = lines if number % 2 else lines[::-1]
        if number % 5 == 0:
            shuffle.shuffle(lines)
        path = "/v1/reservations"
        held = await client.post(path, json={"id": f"r{number}", "lines": lines})
        step = ("confirm", "release")[number % 2]
        done = await client.post(f"{path}/r{number}/{step}")
        return held.status_code, done.status_code

    answers = await asyncio.gather(*(buy(number) for number in range(60)))
    assert set(answers) == {(201, 200)}
    await adds_up()


async def test_confirm_and_release_at_once_leave_one_truth(
    *, reserve, confirm, release, put_stock, level, adds_up
):
    """Whichever comes first, the units end where they began, exactly once."""
    await put_stock(mug=100)
    for number in range(10):
        name = f"r{number}"
        await reserve(name, mug=3)
        confirmed, *released = await asyncio.gather(confirm(name), release(name), release(name))
        assert confirmed.status_code in {200, 409}
        assert {answer.status_code for answer in released} == {200}
        assert await level("mug") == (100, 0)
    await adds_up()


async def test_reserve_and_release_at_once_hold_nothing(
    *, reserve, release, put_stock, level, adds_up
):
    """A compensation that meets its own reserve request wins, on either side of it."""
    await put_stock(mug=100)
    for number in range(10):
        held, released = await asyncio.gather(reserve(f"r{number}", mug=3), release(f"r{number}"))
        assert held.status_code in {201, 409}
        assert released.status_code == 200
        assert await level("mug") == (100, 0)
    await adds_up()


async def test_confirm_and_expiry_at_once_leave_one_truth(
    *, reserve, confirm, put_stock, level, fake_clock, adds_up, client
):
    """A reservation that is confirmed in its last moment is confirmed or expired, never both."""
    await put_stock(mug=100)
    for number in range(10):
        name = f"r{number}"
        await reserve(name, seconds=60, mug=1)
        fake_clock.advance(59)
        answers = await asyncio.gather(
            confirm(name), _expire(fake_clock, client), confirm(name), return_exceptions=False
        )
        state = (await client.get(f"/v1/reservations/{name}")).json()["state"]
        assert state in {"confirmed", "expired"}
        assert (answers[0].status_code == 200) == (state == "confirmed") or (
            answers[2].status_code == 200 and state == "confirmed"
        )
    on_hand, held = await level("mug")
    assert held == 0
    assert 90 <= on_hand <= 100
    await adds_up()


async def _expire(fake_clock, client):
    fake_clock.advance(1)
    return await client.get("/livez")


async def test_stock_takes_race_with_buyers(*, client, writer, reserve, put_stock, level, adds_up):
    """Setting and adding to the stock while it is sold loses no unit and oversells none."""
    await put_stock(mug=20)

    async def count(number):
        body = {"on_hand": 20 + number % 7}
        return await client.put("/v1/stock/mug", json=body, headers=writer)

    async def deliver():
        return await client.post("/v1/stock/mug/restock", json={"quantity": 1}, headers=writer)

    async def buy(number):
        return await reserve(f"r{number}", mug=1)

    answers = await asyncio.gather(
        *(job for n in range(40) for job in (count(n), deliver(), buy(n)))
    )
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    held = sum(answer.status_code == 201 for answer in answers)
    assert (await level("mug"))[1] == held
    await adds_up()
