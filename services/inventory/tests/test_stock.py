"""The stock: set it, add to it, read it, ask whether it is enough."""

import asyncio

import pytest


async def test_check_says_what_is_short(client, put_stock, reserve):
    """Held units are not available, unknown items have none, and nothing is held by asking."""
    await put_stock(mug=5, pan=1)
    await reserve("r1", mug=2)
    lines = [
        {"item_id": "pan", "quantity": 1},
        {"item_id": "mug", "quantity": 4},
        {"item_id": "unknown", "quantity": 1},
    ]
    answer = await client.post("/v1/check", json={"items": lines})
    assert answer.status_code == 200
    assert answer.json() == {
        "available": False,
        "short": [
            {"item_id": "mug", "requested": 4, "available": 3},
            {"item_id": "unknown", "requested": 1, "available": 0},
        ],
    }
    for _ in range(2):
        enough = await client.post("/v1/check", json={"items": [{"item_id": "mug", "quantity": 3}]})
        assert enough.json() == {"available": True, "short": []}


async def test_lines_of_one_item_are_added_up(client, put_stock, level):
    await put_stock(mug=5)
    twice = [{"item_id": "mug", "quantity": 3}, {"item_id": "mug", "quantity": 3}]
    checked = (await client.post("/v1/check", json={"items": twice})).json()
    assert checked["short"] == [{"item_id": "mug", "requested": 6, "available": 5}]
    refused = await client.post("/v1/reservations", json={"id": "r1", "lines": twice})
    assert refused.json()["lines"] == [{"item_id": "mug", "requested": 6, "available": 5}]
    await put_stock(mug=6)
    held = await client.post("/v1/reservations", json={"id": "r1", "lines": twice})
    assert held.json()["lines"] == [{"item_id": "mug", "quantity": 6}]
    assert await level("mug") == (6, 6)


async def test_the_stock_is_set_and_read(client, writer, fake_clock):
    first = await client.put("/v1/stock/mug", json={"on_hand": 5}, headers=writer)
    assert first.status_code == 201
    again = await client.put("/v1/stock/mug", json={"on_hand": 7}, headers=writer)
    assert again.status_code == 200
    read = await client.get("/v1/stock/mug")
    assert read.json() == again.json()
    assert read.json() == {
        "item_id": "mug",
        "on_hand": 7,
        "held": 0,
        "available": 7,
        "updated_at": fake_clock.now().isoformat().replace("+00:00", "Z"),
    }
    assert read.headers["ETag"] == again.headers["ETag"] != first.headers["ETag"]
    same = await client.get("/v1/stock/mug", headers={"If-None-Match": read.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")


async def test_held_units_cannot_be_counted_away(
    *, client, writer, put_stock, reserve, level, problem
):
    await put_stock(mug=5)
    await reserve("r1", mug=3)
    refused = await client.put("/v1/stock/mug", json={"on_hand": 2}, headers=writer)
    assert problem(refused, 409, "stock-held")["held"] == 3
    assert await level("mug") == (5, 3)
    await put_stock(mug=3)
    assert await level("mug") == (3, 3)


async def test_a_count_may_depend_on_what_was_read(client, writer, reserve, problem, adds_up):
    """`If-Match` is optional; of many writers that send the same one, one wins."""
    created = await client.put("/v1/stock/mug", json={"on_hand": 5}, headers=writer)
    headers = {**writer, "If-Match": created.headers["ETag"]}
    answers = await asyncio.gather(
        *(
            client.put("/v1/stock/mug", json={"on_hand": 10 + number}, headers=headers)
            for number in range(10)
        )
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] + [412] * 9
    headers["If-Match"] = (await client.get("/v1/stock/mug")).headers["ETag"]
    await reserve("r1", mug=1)
    stale = await client.put("/v1/stock/mug", json={"on_hand": 4}, headers=headers)
    problem(stale, 412, "precondition-failed")
    await adds_up()


async def test_a_count_of_nothing_depends_on_nothing(client, writer, level, problem, adds_up):
    """No tag and not `*` either fits an item that was never stocked (RFC 9110, section 13.1.1)."""
    for tag in ("*", '"0"', '"1"'):
        headers = {**writer, "If-Match": tag}
        refused = await client.put("/v1/stock/mug", json={"on_hand": 5}, headers=headers)
        problem(refused, 412, "precondition-failed")
    assert (await client.get("/v1/stock/mug")).status_code == 404
    made = await client.put("/v1/stock/mug", json={"on_hand": 5}, headers=writer)
    assert made.status_code == 201
    headers = {**writer, "If-Match": "*"}
    counted = await client.put("/v1/stock/mug", json={"on_hand": 7}, headers=headers)
    assert counted.status_code == 200
    assert await level("mug") == (7, 0)
    await adds_up()


async def test_a_restock_with_a_key_adds_once(client, writer, level, problem, adds_up):
    """50 requests at once with the same key add once; another body with the key is refused."""
    headers = {**writer, "Idempotency-Key": "delivery-17"}
    answers = await asyncio.gather(
        *(
            client.post("/v1/stock/mug/restock", json={"quantity": 12}, headers=headers)
            for _ in range(50)
        )
    )
    done = [answer for answer in answers if answer.status_code == 200]
    assert done
    assert all(answer.status_code in {200, 409} for answer in answers)
    assert {answer.json()["on_hand"] for answer in done} == {12}
    assert await level("mug") == (12, 0)
    other = await client.post("/v1/stock/mug/restock", json={"quantity": 1}, headers=headers)
    problem(other, 422, "idempotency-key-reused")
    headers["Idempotency-Key"] = "delivery-18"
    more = await client.post("/v1/stock/mug/restock", json={"quantity": 3}, headers=headers)
    assert more.json()["on_hand"] == 15
    await adds_up()


async def test_concurrent_restocks_all_count(client, writer, level, adds_up):
    """The first one of a new item too, which all of them try to create."""
    await asyncio.gather(
        *(
            client.post("/v1/stock/mug/restock", json={"quantity": 2}, headers=writer)
            for _ in range(20)
        )
    )
    assert await level("mug") == (40, 0)
    assert (await adds_up()).movements == 20


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/check", None),
        ("GET", "/v1/stock/mug", None),
        ("PUT", "/v1/stock/mug", "inventory:write"),
        ("POST", "/v1/stock/mug/restock", "inventory:write"),
        ("POST", "/v1/reservations", "inventory:reserve"),
        ("GET", "/v1/reservations/r1", "inventory:reserve"),
        ("POST", "/v1/reservations/r1/confirm", "inventory:reserve"),
        ("POST", "/v1/reservations/r1/release", "inventory:reserve"),
    ],
)
async def test_every_route_asks_who_is_there(*, app, app_client, token_issuer, method, path, scope):
    async with app_client(app) as client:
        anonymous = await client.request(method, path, json={})
        assert anonymous.status_code == 401
        assert anonymous.headers["WWW-Authenticate"].startswith("Bearer")
        caller = token_issuer.authorization("u1", "orders:write")
        known = await client.request(method, path, json={}, headers=caller)
    if scope is None:
        assert known.status_code in {404, 422}
    else:
        assert known.status_code == 403
        assert scope in known.text


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"item_id": "mug", "quantity": 0}],
        [{"item_id": "mug", "quantity": -1}],
        [{"item_id": "mug", "quantity": 1.0}],
        [{"item_id": "mug", "quantity": "1"}],
        [{"item_id": "mug", "quantity": True}],
        [{"item_id": "mug", "quantity": 10**30}],
        [{"item_id": "mug' OR 1=1 --", "quantity": 1}],
        [{"item_id": "mug\x00", "quantity": 1}],
        [{"item_id": "mug", "quantity": 1, "price": 1}],
        [{"item_id": "mug"}],
        [{"item_id": "mug", "quantity": 1}] * 101,
        "mug",
        None,
    ],
)
async def test_bad_lines_are_refused(client, problem, lines):
    checked = await client.post("/v1/check", json={"items": lines})
    assert problem(checked, 422, "validation")["errors"][0]["loc"][0] == "body"
    reserved = await client.post("/v1/reservations", json={"id": "r1", "lines": lines})
    assert problem(reserved, 422, "validation")["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize("on_hand", [-1, 1.5, "5", None, 10**10, True])
async def test_bad_counts_are_refused(client, writer, problem, on_hand):
    answer = await client.put("/v1/stock/mug", json={"on_hand": on_hand}, headers=writer)
    problem(answer, 422, "validation")


async def test_the_database_itself_refuses_to_oversell(database, put_stock):
    """The constraints stand even if the code above them were wrong."""
    from sqlalchemy import exc, update

    from inventory.models import stock

    await put_stock(mug=5)
    for wrong in ({"on_hand": -1}, {"held": 6}, {"held": -1}, {"on_hand": 1, "held": 2}):
        with pytest.raises(exc.IntegrityError):
            async with database.session() as session:
                await session.execute(update(stock).values(wrong))
