"""The API of orders, with the real items, inventory and notifications behind it."""

import json

import anyio
import httpx2

from orders.main import create_app
from orders.settings import Settings

STOCK = 20


async def test_an_order_is_priced_reserved_confirmed_and_told(world):
    """The main job: 201 with the price of the catalogue, stock gone, one notification."""
    async with world.orders() as client:
        answer = await client.post("/v1/orders", json=world.lines(desk=2, lamp=1))
        order = answer.json()
        assert answer.status_code == 201, answer.text
        assert answer.headers["Location"] == f"/v1/orders/{order['id']}"
        assert order["status"] == "confirmed"
        assert order["total"] == {"amount": "28.25", "currency": "EUR"}
        assert order["lines"][0] == {
            "item_id": "desk",
            "quantity": 2,
            "name": "Desk",
            "unit_price": {"amount": "12.50", "currency": "EUR"},
        }
        assert await world.available("desk") == STOCK - 2
        assert await world.reservation(order["id"]) == "confirmed"
        assert (await client.get(answer.headers["Location"])).json() == order
        await world.eventually(lambda: world.told("u1"))
        assert await world.told("u1") == [("order.confirmed", order["id"])]
        assert await world.counted(client, "confirmed") == 1
        assert await world.counted(client, "pending") == 1


async def test_lines_of_one_item_are_added_up(world):
    """Two lines of the same item are one line of their sum."""
    body = {"lines": [{"item_id": "desk", "quantity": 1}, {"item_id": "desk", "quantity": 3}]}
    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=body)).json()
        assert [(line["item_id"], line["quantity"]) for line in order["lines"]] == [("desk", 4)]


async def test_the_price_is_fixed_at_order_time(world):
    """A later change of the catalogue does not touch an order."""
    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=world.lines(desk=1))).json()
        admin = world.issuer.authorization("admin", "items:write")
        url = f"{world.urls['items']}/v1/items/desk"
        tag = (await world.http.get(url)).headers["ETag"]
        deleted = await world.http.delete(url, headers={**admin, "If-Match": tag})
        assert deleted.status_code == 204
        assert (await client.get(f"/v1/orders/{order['id']}")).json() == order


async def test_lines_that_cannot_be_sold_are_refused(world):
    """422 with the lines it is about; nothing is stored and no stock is touched."""
    refused = [
        ({"desk": 1, "unicorn": 2}, "unknown-items", ["unicorn"]),
        ({"desk": 1, "sofa": 1}, "items-not-for-sale", ["sofa"]),
        ({"desk": 1, "rug": 1}, "mixed-currencies", ["desk", "rug"]),
        ({"gold": 10_000}, "total-too-large", ["gold"]),
    ]
    async with world.orders() as client:
        for wanted, problem, named in refused:
            answer = await client.post("/v1/orders", json=world.lines(**wanted))
            assert answer.status_code == 422
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["type"] == f"urn:slipway:problem:{problem}"
            assert [line["item_id"] for line in answer.json()["lines"]] == named
        assert (await client.get("/v1/orders")).json()["items"] == []
        assert world.inventory.requests == []


async def test_short_stock_is_a_conflict_that_names_the_lines(world):
    """409 says what is short; the order is kept as rejected, and nothing of it stays reserved."""
    async with world.orders() as client:
        answer = await client.post("/v1/orders", json=world.lines(desk=STOCK + 1, lamp=1))
        problem = answer.json()
        assert answer.status_code == 409
        assert problem["type"] == "urn:slipway:problem:insufficient-stock"
        assert problem["lines"] == [{"item_id": "desk", "requested": STOCK + 1, "available": STOCK}]
        order = (await client.get(f"/v1/orders/{problem['order_id']}")).json()
        assert (order["status"], order["reason"]["code"]) == ("rejected", "insufficient-stock")
        assert await world.available("lamp") == STOCK

        async def released() -> bool:
            return await world.reservation(order["id"]) == "released"

        await world.eventually(released)  # a late request of ours now finds a tombstone
        # The answer said it; a notification would say it again.
        assert await world.published() == []
        assert await world.told("u1") == []
        cancelled = await client.post(f"/v1/orders/{order['id']}/cancel")
        assert cancelled.status_code == 409
        assert cancelled.json()["type"] == "urn:slipway:problem:order-not-cancellable"
        assert await world.counted(client, "rejected") == 1


async def test_cancelling_returns_the_stock_and_tells_the_owner(world):
    """A confirmed order can be cancelled; doing it again changes and tells nothing more."""
    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=world.lines(desk=5))).json()
        for _ in range(3):
            answer = await client.post(f"/v1/orders/{order['id']}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert await world.available("desk") == STOCK

        async def both() -> bool:
            return len(await world.told("u1")) >= 2

        await world.eventually(both)
        assert sorted(await world.told("u1")) == [
            ("order.cancelled", order["id"]),
            ("order.confirmed", order["id"]),
        ]
        assert await world.counted(client, "cancelled") == 1


async def test_orders_of_others_do_not_exist(world):
    """Reading and cancelling somebody else's order is 404, and lists show only one's own."""
    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=world.lines(desk=1))).json()
        other = world.user("u2")
        path = f"/v1/orders/{order['id']}"
        assert (await client.get(path, headers=other)).status_code == 404
        assert (await client.post(f"{path}/cancel", headers=other)).status_code == 404
        assert (await client.get("/v1/orders", headers=other)).json()["items"] == []
        assert (await client.get(path)).json()["status"] == "confirmed"


async def test_the_list_pages_and_filters(world):
    """Newest first, by cursor without gaps, and by status."""
    async with world.orders() as client:
        placed = [await client.post("/v1/orders", json=world.lines(lamp=1)) for _ in range(5)]
        ids = [answer.json()["id"] for answer in placed]
        await client.post(f"/v1/orders/{ids[1]}/cancel")
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await client.get("/v1/orders", params={"limit": 2, **cursor})).json()
            seen += [order["id"] for order in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == ids[::-1]
        cancelled = await client.get("/v1/orders", params={"status": "cancelled"})
        assert [order["id"] for order in cancelled.json()["items"]] == [ids[1]]
        assert (await client.get("/v1/orders", params={"cursor": "x"})).status_code == 400
        # The cursor of one list is no cursor of another.
        assert (
            await client.get("/v1/orders", params={"status": "confirmed", **cursor})
        ).status_code == 400


async def test_placing_needs_the_scope(world):
    """No token is 401, a token without `orders:write` is 403 and names the scope."""
    async with world.orders() as client:
        for scopes, status in [(None, 401), ("orders:read", 403), ("orders:write", 201)]:
            headers = {"Authorization": ""}
            if scopes is not None:
                headers = world.issuer.authorization("u1", scopes)
            answer = await client.post("/v1/orders", json=world.lines(desk=1), headers=headers)
            assert answer.status_code == status
            assert status != 403 or "orders:write" in answer.text


async def test_bad_bodies_are_refused(world):
    """Whatever breaks the schema is 422 and reaches no peer."""
    bodies = [
        {},
        {"lines": []},
        {"lines": [{"item_id": "desk", "quantity": 0}]},
        {"lines": [{"item_id": "desk", "quantity": 1.5}]},
        {"lines": [{"item_id": "desk", "quantity": "many"}]},
        {"lines": [{"item_id": "'; DROP TABLE orders; --", "quantity": 1}]},
        {"lines": [{"item_id": "desk\u0000", "quantity": 1}]},
        {"lines": [{"item_id": "desk", "quantity": 9_000}, {"item_id": "desk", "quantity": 9_000}]},
        {"lines": [{"item_id": f"i{n}", "quantity": 1} for n in range(51)]},
        {"lines": [{"item_id": "desk", "quantity": 1}], "price": "0.01"},
    ]
    async with world.orders() as client:
        for body in bodies:
            answer = await client.post("/v1/orders", json=body)
            assert answer.status_code == 422, body
        assert world.items.requests == []


async def test_fifty_times_the_same_key_make_one_order(world):
    """However many identical requests come at once, one order is placed and all hear of it."""
    answers: list[httpx2.Response] = []
    async with world.orders() as client:

        async def place() -> None:
            answers.append(
                await client.post(
                    "/v1/orders",
                    json=world.lines(desk=2),
                    headers={"Idempotency-Key": "once"},
                )
            )

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(place)
        placed = [answer for answer in answers if answer.status_code == 201]
        waiting = [answer for answer in answers if answer.status_code == 409]
        assert len(placed) + len(waiting) == 50
        assert {answer.json()["id"] for answer in placed} == {placed[0].json()["id"]}
        assert all("Retry-After" in answer.headers for answer in waiting)
        assert len((await client.get("/v1/orders")).json()["items"]) == 1
        assert await world.available("desk") == STOCK - 2
        other = await client.post(
            "/v1/orders", json=world.lines(desk=3), headers={"Idempotency-Key": "once"}
        )
        assert other.status_code == 422


async def test_a_key_is_known_by_its_owner_only(world):
    """Two users may use the same key; each gets an order of their own."""
    async with world.orders() as client:
        key = {"Idempotency-Key": "mine"}
        first = await client.post("/v1/orders", json=world.lines(desk=1), headers=key)
        second = await client.post(
            "/v1/orders", json=world.lines(desk=1), headers={**key, **world.user("u2")}
        )
        assert first.json()["id"] != second.json()["id"]


async def test_a_refusal_is_replayed_too(world):
    """The same key answers the same 409, although there is stock by now."""
    async with world.orders() as client:
        key = {"Idempotency-Key": "short"}
        first = await client.post("/v1/orders", json=world.lines(desk=STOCK + 1), headers=key)
        await world.stock("desk", 1000)
        again = await client.post("/v1/orders", json=world.lines(desk=STOCK + 1), headers=key)
        assert (first.status_code, again.status_code) == (409, 409)
        assert again.json()["order_id"] == first.json()["order_id"]
        assert again.headers["Content-Type"] == "application/problem+json"


async def test_buyers_get_what_there_is_and_no_more(world):
    """40 buyers for 20 units: 20 orders are confirmed, 20 refused, and the stock is zero."""
    statuses: list[int] = []
    async with world.orders() as client:

        async def buy(user: str) -> None:
            answer = await client.post(
                "/v1/orders", json=world.lines(desk=1), headers=world.user(user)
            )
            statuses.append(answer.status_code)

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(buy, f"buyer{number}")
        assert sorted(statuses) == [201] * STOCK + [409] * STOCK
        assert await world.available("desk") == 0


def test_the_document_shows_what_the_api_does(make_settings):
    """The OpenAPI document has examples, summaries and tags, and names the problems."""
    document = create_app(make_settings(Settings)).openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["tags"], path
    post = document["paths"]["/v1/orders"]["post"]
    assert {"201", "202", "401", "403", "409", "422"} <= set(post["responses"])
    assert "walnut-desk" in json.dumps(document["components"]["schemas"]["OrderIn"])
