"""v2 has several prices; v1 is a faithful view of the first of them."""

from datetime import UTC, datetime

import pytest

from chassis.settings import SettingsError, load_settings
from items.main import create_app
from items.settings import Settings

EUR = {"amount": "549.00", "currency": "EUR"}
USD = {"amount": "595.00", "currency": "USD"}
GBP = {"amount": "475.00", "currency": "GBP"}


async def prices(client, item_id="desk"):
    return (await client.get(f"/v2/items/{item_id}")).json()["prices"]


async def test_v1_shows_the_first_price(client, make_item):
    await make_item("desk", version="v2", prices=[USD, EUR, GBP])
    v1 = (await client.get("/v1/items/desk")).json()
    v2 = (await client.get("/v2/items/desk")).json()
    assert v2.pop("prices") == [USD, EUR, GBP]
    assert v1.pop("price") == USD
    assert v1 == v2


async def test_both_versions_have_one_etag_of_the_state(client, writer, make_item):
    tag = await make_item("desk", version="v2", prices=[EUR])
    assert (await client.get("/v1/items/desk")).headers["ETag"] == tag
    changed = await client.patch(
        "/v1/items/desk", json={"price": {"amount": "5.00"}}, headers={**writer, "If-Match": tag}
    )
    assert changed.status_code == 200
    old = await client.patch(
        "/v2/items/desk", json={"prices": [USD]}, headers={**writer, "If-Match": tag}
    )
    assert old.status_code == 412


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_v1_writer_keeps_the_prices_it_cannot_see(client, writer, make_item, desk, method):
    tag = await make_item("desk", version="v2", prices=[EUR, USD, GBP])
    cheaper = {"amount": "499.00", "currency": "EUR"}
    body = {**desk, "price": cheaper} if method == "PUT" else {"price": {"amount": "499.00"}}
    headers = {**writer, "If-Match": tag}
    answer = await client.request(method, "/v1/items/desk", json=body, headers=headers)
    assert answer.json()["price"] == cheaper
    assert await prices(client) == [cheaper, USD, GBP]


async def test_a_v1_writer_may_change_the_currency(client, writer, make_item):
    """A further price of the same currency gives way: each currency has one price."""
    tag = await make_item("desk", version="v2", prices=[EUR, USD, GBP])
    now_dollars = {"amount": "600.00", "currency": "USD"}
    answer = await client.patch(
        "/v1/items/desk", json={"price": now_dollars}, headers={**writer, "If-Match": tag}
    )
    assert answer.json()["price"] == now_dollars
    assert await prices(client) == [now_dollars, GBP]


@pytest.mark.parametrize("bad", [[], [EUR, EUR], [{**EUR, "amount": 5.5}], EUR, None, [None]])
async def test_prices_are_checked(client, writer, problem, desk, bad):
    del desk["price"]
    answer = await client.put("/v2/items/desk", json={**desk, "prices": bad}, headers=writer)
    errors = problem(answer, 422, "validation")["errors"]
    assert errors[0]["loc"][:2] == ["body", "prices"]


async def test_a_patch_of_v2_replaces_all_prices(client, writer, make_item):
    tag = await make_item("desk", version="v2", prices=[EUR, USD])
    answer = await client.patch(
        "/v2/items/desk", json={"prices": [GBP]}, headers={**writer, "If-Match": tag}
    )
    assert answer.json()["prices"] == [GBP]


async def test_creation_and_deletion_work_in_v2(client, writer, desk):
    del desk["price"]
    created = await client.post("/v2/items", json={**desk, "prices": [EUR, USD]}, headers=writer)
    assert created.status_code == 201
    assert created.headers["Location"].startswith("/v2/items/")
    read = await client.get(created.headers["Location"])
    assert read.json() == created.json()
    headers = {**writer, "If-Match": read.headers["ETag"]}
    assert (await client.delete(created.headers["Location"], headers=headers)).status_code == 204


async def test_v1_filters_by_the_price_it_shows_and_v2_by_all(client, make_item):
    await make_item("a", version="v2", prices=[EUR, USD])
    await make_item("b", version="v2", prices=[USD, EUR])
    dollars = {"currency": "USD", "sort": "price"}

    async def ids(version):
        answer = await client.get(f"/{version}/items", params=dollars)
        return [item["id"] for item in answer.json()["items"]]

    assert await ids("v1") == ["b"]
    assert await ids("v2") == ["a", "b"]


async def test_the_version_may_be_chosen_by_header(client, make_item, problem):
    await make_item("desk", version="v2", prices=[EUR, USD])
    v2 = await client.get("/items/desk", headers={"X-API-Version": "2"})
    assert v2.json()["prices"] == [EUR, USD]
    v1 = await client.get("/items/desk", headers={"X-API-Version": "v1"})
    assert v1.json()["price"] == EUR
    answer = await client.get("/items/desk", headers={"X-API-Version": "3"})
    problem(answer, 400, "unknown-version")


async def test_v1_is_not_deprecated_until_it_is_announced(client, make_item):
    await make_item("desk")
    answer = await client.get("/v1/items/desk")
    assert "Deprecation" not in answer.headers
    assert "Sunset" not in answer.headers


async def test_an_announced_end_of_v1_is_in_every_answer(settings, app_client):
    """Two variables, and no code, announce the end: RFC 9745, RFC 8594 and the successor."""
    announced = settings.model_copy(
        update={
            "v1_deprecated": datetime(2027, 1, 1, tzinfo=UTC),
            "v1_sunset": datetime(2027, 7, 1, 12, tzinfo=UTC),
        }
    )
    async with app_client(create_app(announced)) as client:
        for path in ("/v1/items", "/v1/items/none"):
            answer = await client.get(path)
            assert answer.headers["Deprecation"] == "@1798761600"
            assert answer.headers["Sunset"] == "Thu, 01 Jul 2027 12:00:00 GMT"
            successor = path.replace("v1", "v2")
            assert answer.headers["Link"] == f'<{successor}>; rel="successor-version"'
        v2 = await client.get("/v2/items")
        assert "Deprecation" not in v2.headers
        document = (await client.get("/openapi.json")).json()
        assert document["paths"]["/v1/items"]["get"]["deprecated"] is True
        assert "deprecated" not in document["paths"]["/v2/items"]["get"]


@pytest.mark.parametrize(
    "variables",
    [
        {"ITEMS_V1_SUNSET": "2027-01-01T00:00:00Z"},
        {"ITEMS_V1_SUNSET": "2027-01-01T00:00:00Z", "ITEMS_V1_DEPRECATED": "2027-02-01T00:00:00Z"},
        {"ITEMS_V1_DEPRECATED": "soon"},
    ],
)
def test_impossible_dates_stop_the_start_in_one_line(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as stopped:
        load_settings(Settings)
    assert "\n" not in str(stopped.value)
    assert "v1_" in str(stopped.value).lower()
