"""Create, read, replace, change and delete an item by v1."""

import asyncio
import uuid

import pytest


async def test_a_created_item_is_where_its_location_says(client, writer, fake_clock, desk):
    created = await client.post("/v1/items", json={"id": "desk", **desk}, headers=writer)
    assert created.status_code == 201
    assert created.headers["Location"] == "/v1/items/desk"
    now = fake_clock.now().isoformat().replace("+00:00", "Z")
    expected = {
        **desk,
        "id": "desk",
        "description": "",
        "tags": [],
        "status": "available",
        "created_at": now,
        "updated_at": now,
    }
    assert created.json() == expected
    read = await client.get(created.headers["Location"])
    assert read.status_code == 200
    assert read.json() == expected
    assert read.headers["ETag"] == created.headers["ETag"]


async def test_without_an_id_the_service_chooses_a_uuid(client, writer, desk):
    created = await client.post("/v1/items", json=desk, headers=writer)
    assert uuid.UUID(created.json()["id"]).version == 7
    assert (await client.get(created.headers["Location"])).json() == created.json()


async def test_put_creates_and_then_needs_the_etag(client, writer, fake_clock, desk, problem):
    created = await client.put("/v1/items/desk", json=desk, headers=writer)
    assert created.status_code == 201
    changed = {**desk, "name": "Better desk", "tags": ["wood", "office", "wood"]}
    problem(
        await client.put("/v1/items/desk", json=changed, headers=writer),
        428,
        "precondition-required",
    )
    fake_clock.advance(60)
    fresh = {**writer, "If-Match": created.headers["ETag"]}
    replaced = await client.put("/v1/items/desk", json=changed, headers=fresh)
    assert replaced.status_code == 200
    assert replaced.json()["name"] == "Better desk"
    assert replaced.json()["tags"] == ["office", "wood"]
    assert replaced.json()["created_at"] == created.json()["created_at"]
    assert replaced.json()["updated_at"] > created.json()["updated_at"]
    assert replaced.headers["ETag"] != created.headers["ETag"]
    problem(
        await client.put("/v1/items/desk", json=desk, headers=fresh), 412, "precondition-failed"
    )
    assert (await client.get("/v1/items/desk")).json() == replaced.json()


async def test_the_same_content_changes_nothing(client, writer, make_item, fake_clock, desk):
    tag = await make_item("desk", sku="DSK-1", name="Desk")
    before = (await client.get("/v1/items/desk")).json()
    fake_clock.advance(60)
    again = await client.put("/v1/items/desk", json=desk, headers={**writer, "If-Match": tag})
    assert again.status_code == 200
    assert again.headers["ETag"] == tag
    assert again.json() == before


async def test_preconditions_of_put_hold_for_what_is_absent_too(
    client, writer, make_item, desk, problem
):
    stale = {**writer, "If-Match": '"anything"'}
    problem(
        await client.put("/v1/items/desk", json=desk, headers=stale), 412, "precondition-failed"
    )
    await make_item("desk")
    only_new = {**writer, "If-None-Match": "*"}
    problem(
        await client.put("/v1/items/desk", json=desk, headers=only_new), 412, "precondition-failed"
    )


async def test_a_read_that_knows_the_state_is_304(client, make_item):
    tag = await make_item("desk")
    same = await client.get("/v1/items/desk", headers={"If-None-Match": f'"x", W/{tag}'})
    assert same.status_code == 304
    assert same.content == b""
    assert same.headers["ETag"] == tag
    other = await client.get("/v1/items/desk", headers={"If-None-Match": '"x"'})
    assert other.status_code == 200


async def test_delete_needs_the_etag_and_a_new_item_has_a_new_one(
    client, writer, make_item, problem
):
    tag = await make_item("desk")
    problem(await client.delete("/v1/items/desk", headers=writer), 428, "precondition-required")
    stale = {**writer, "If-Match": '"x"'}
    problem(await client.delete("/v1/items/desk", headers=stale), 412, "precondition-failed")
    gone = await client.delete("/v1/items/desk", headers={**writer, "If-Match": tag})
    assert (gone.status_code, gone.content) == (204, b"")
    problem(await client.get("/v1/items/desk"), 404)
    problem(await client.delete("/v1/items/desk", headers={**writer, "If-Match": tag}), 404)
    # The old ETag must not fit an item that only has the same id.
    assert await make_item("desk") != tag
    problem(
        await client.delete("/v1/items/desk", headers={**writer, "If-Match": tag}),
        412,
        "precondition-failed",
    )


async def test_ids_and_skus_are_unique(client, writer, make_item, desk, problem):
    tag = await make_item("desk", sku="DSK-1")
    await make_item("lamp", sku="LMP-1")
    same_id = await client.post("/v1/items", json={**desk, "id": "desk"}, headers=writer)
    problem(same_id, 409, "item-exists")
    same_sku = await client.post("/v1/items", json={**desk, "id": "desk-2"}, headers=writer)
    problem(same_sku, 409, "sku-taken")
    moved = await client.patch(
        "/v1/items/desk", json={"sku": "LMP-1"}, headers={**writer, "If-Match": tag}
    )
    problem(moved, 409, "sku-taken")
    assert (await client.get("/v1/items/desk")).json()["sku"] == "DSK-1"
    problem(await client.get("/v1/items/desk-2"), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("PUT", "/desk"), ("PATCH", "/desk"), ("DELETE", "/desk")],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_changes_need_the_scope(*, client, token_issuer, method, path, version, problem):
    url = f"/{version}/items{path}"
    anonymous = await client.request(method, url, json={})
    problem(anonymous, 401)
    assert anonymous.headers["WWW-Authenticate"].startswith("Bearer")
    reader = token_issuer.authorization("u1", "orders:write")
    forbidden = await client.request(method, url, json={}, headers=reader)
    assert "items:write" in str(problem(forbidden, 403, "insufficient-scope"))


@pytest.mark.parametrize(
    "price",
    [
        {"amount": 549.0, "currency": "EUR"},
        {"amount": 549, "currency": "EUR"} | {"amount": True},
        {"amount": "5.4.9", "currency": "EUR"},
        {"amount": "1e3", "currency": "EUR"},
        {"amount": "NaN", "currency": "EUR"},
        {"amount": "-1.00", "currency": "EUR"},
        {"amount": "0.001", "currency": "EUR"},
        {"amount": "1.5", "currency": "JPY"},
        {"amount": "1.50", "currency": "XXX"},
        {"amount": "1.50", "currency": "eur"},
        {"amount": "123456789012345", "currency": "EUR"},
        549.0,
        None,
    ],
)
async def test_a_price_is_a_decimal_string_with_a_currency(client, writer, price, desk, problem):
    """Floats, other notations, negative amounts and unknown currencies are refused by field."""
    answer = await client.put("/v1/items/desk", json={**desk, "price": price}, headers=writer)
    errors = problem(answer, 422, "validation")["errors"]
    assert all(error["loc"][:2] == ["body", "price"] for error in errors)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "0.00"), ("12.5", "12.50"), ("99999999999999.99", "99999999999999.99")],
)
async def test_amounts_are_exact(client, make_item, amount, shown):
    await make_item("desk", price={"amount": amount, "currency": "EUR"})
    assert (await client.get("/v1/items/desk")).json()["price"]["amount"] == shown


@pytest.mark.parametrize(
    "field",
    [
        {"sku": ""},
        {"sku": "no spaces"},
        {"name": ""},
        {"name": " padded"},
        {"name": "two\nlines"},
        {"name": "x" * 201},
        {"description": "nul \x00 nul"},
        {"category": "Furniture"},
        {"tags": ["Not a tag"]},
        {"tags": [f"t{n}" for n in range(21)]},
        {"status": "sold"},
        {"colour": "red"},
    ],
)
async def test_bad_fields_are_refused(client, writer, field, desk, problem):
    answer = await client.put("/v1/items/desk", json={**desk, **field}, headers=writer)
    errors = problem(answer, 422, "validation")["errors"]
    assert errors[0]["loc"][0] == "body"


async def test_text_is_kept_as_it_was_sent(client, make_item):
    """Quotes, SQL, other scripts and emoji are data."""
    text = 'Robert\'); DROP TABLE items;-- \u4e16\u754c \U0001f6cb "quoted" 100%_\\'
    await make_item("desk", name=text, description=f"{text}\n\t{text}")
    item = (await client.get("/v1/items/desk")).json()
    assert (item["name"], item["description"]) == (text, f"{text}\n\t{text}")


@pytest.mark.parametrize("item_id", ["Desk", "-desk", "d%20k", "d_k", "x" * 64, "d%00k", "d'k"])
async def test_a_malformed_id_is_422(client, item_id, problem):
    problem(await client.get(f"/v1/items/{item_id}"), 422, "validation")


async def test_an_unknown_id_is_404(client, problem):
    problem(await client.get("/v1/items/nothing"), 404)


async def test_two_writers_with_one_etag_one_wins(client, writer, make_item, desk):
    """No lost update: of 20 concurrent changes based on the same state exactly one is made."""
    tag = await make_item("desk")
    headers = {**writer, "If-Match": tag}

    async def change(number):
        path = "/v1/items/desk"
        if number % 2:
            return await client.patch(path, json={"name": f"n{number}"}, headers=headers)
        return await client.put(path, json={**desk, "name": f"n{number}"}, headers=headers)

    answers = await asyncio.gather(*(change(number) for number in range(20)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] + [412] * 19
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert (await client.get("/v1/items/desk")).json() == winner.json()


async def test_a_change_and_a_delete_with_one_etag_one_wins(client, writer, make_item):
    for number in range(5):
        headers = {**writer, "If-Match": await make_item(f"desk-{number}")}
        path = f"/v1/items/desk-{number}"
        patched, deleted = await asyncio.gather(
            client.patch(path, json={"name": "new"}, headers=headers),
            client.delete(path, headers=headers),
        )
        assert (patched.status_code, deleted.status_code) in {(200, 412), (404, 204), (412, 204)}


async def test_concurrent_creations_of_one_id_make_one_item(client, writer, desk):
    answers = await asyncio.gather(
        *(client.put("/v1/items/desk", json=desk, headers=writer) for _ in range(10))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(201) == 1
    assert set(codes) <= {201, 409, 428}


async def test_one_idempotency_key_creates_one_item(client, writer, desk, problem):
    """50 requests at once with the same key: one item, and everybody gets the same answer."""
    headers = {**writer, "Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    answers = await asyncio.gather(
        *(client.post("/v1/items", json=desk, headers=headers) for _ in range(50))
    )
    done = [answer for answer in answers if answer.status_code == 201]
    busy = [answer for answer in answers if answer.status_code == 409]
    assert len(done) + len(busy) == 50
    assert len({(answer.content, answer.headers["Location"]) for answer in done}) == 1
    assert len((await client.get("/v1/items")).json()["items"]) == 1
    again = await client.post("/v1/items", json=desk, headers=headers)
    assert (again.status_code, again.content) == (201, done[0].content)
    assert again.headers["ETag"] == done[0].headers["ETag"]
    other = await client.post("/v1/items", json={**desk, "name": "Other"}, headers=headers)
    problem(other, 422, "idempotency-key-reused")
