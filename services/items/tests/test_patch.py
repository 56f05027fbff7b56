"""JSON merge patch, and what it does to an item."""

import pytest

from chassis.merge_patch import MEDIA_TYPE


@pytest.fixture
def patch(client, writer, make_item):
    """A function that changes a fresh item by this patch and returns the answer."""

    async def change(body, content_type=MEDIA_TYPE, **fields):
        tag = await make_item("desk", **fields)
        headers = {**writer, "If-Match": tag, "Content-Type": content_type}
        return await client.patch("/v1/items/desk", content=body, headers=headers)

    return change


@pytest.mark.parametrize("content_type", [MEDIA_TYPE, "application/json"])
async def test_only_what_is_named_changes(client, patch, content_type):
    answer = await patch(
        '{"name": "New", "price": {"amount": "1.00"}}', content_type, description="Old", tags=["a"]
    )
    assert answer.status_code == 200
    item = answer.json()
    assert item == (await client.get("/v1/items/desk")).json()
    assert (item["name"], item["description"], item["tags"]) == ("New", "Old", ["a"])
    assert item["price"] == {"amount": "1.00", "currency": "EUR"}


async def test_null_puts_back_the_default(patch):
    answer = await patch('{"description": null, "tags": null}', description="Old", tags=["a"])
    assert (answer.json()["description"], answer.json()["tags"]) == ("", [])


async def test_an_empty_patch_changes_nothing(client, patch):
    answer = await patch("{}")
    assert answer.status_code == 200
    same = await client.get("/v1/items/desk", headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ('{"name": null}', ["body", "name"]),
        ('{"price": null}', ["body", "price"]),
        ('{"price": {"amount": 1.5}}', ["body", "price", "amount"]),
        ('{"price": {"amount": "1.555"}}', ["body", "price"]),
        ('{"price": {"currency": "JPY"}}', ["body", "price"]),
        ('{"price": {"colour": "red"}}', ["body", "price", "colour"]),
        ('{"id": "other"}', ["body", "id"]),
        ('{"created_at": "2026-01-01T00:00:00Z"}', ["body", "created_at"]),
        ("[]", ["body"]),
        ('"text"', ["body"]),
        ("null", ["body"]),
    ],
)
async def test_a_bad_patch_is_refused_and_changes_nothing(client, patch, problem, body, loc):
    answer = await patch(body, price={"amount": "5.50", "currency": "EUR"})
    errors = problem(answer, 422, "validation")["errors"]
    assert errors[0]["loc"] == loc
    assert (await client.get("/v1/items/desk")).json()["price"]["amount"] == "5.50"


async def test_a_patch_needs_the_etag(client, writer, make_item, problem):
    await make_item("desk")
    answer = await client.patch("/v1/items/desk", json={"name": "New"}, headers=writer)
    problem(answer, 428, "precondition-required")
    missing = {**writer, "If-Match": "*"}
    problem(await client.patch("/v1/items/none", json={"name": "New"}, headers=missing), 404)
    anything = await client.patch("/v1/items/desk", json={"name": "New"}, headers=missing)
    assert anything.status_code == 200


async def test_another_media_type_is_refused(patch):
    answer = await patch('{"name": "New"}', "text/plain")
    assert answer.status_code in {415, 422}
