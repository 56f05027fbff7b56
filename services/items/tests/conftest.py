"""Fixtures of the tests of items: the application on each database, and who may write."""

import pytest

from items.main import create_app
from items.settings import Settings

BODY = {
    "sku": "DSK-1",
    "name": "Desk",
    "category": "furniture",
    "price": {"amount": "549.00", "currency": "EUR"},
}


@pytest.fixture
def desk():
    """A body of v1 that is as short as it may be."""
    return {**BODY, "price": dict(BODY["price"])}


@pytest.fixture
def settings(migrated_database_url, make_settings):
    """Settings on a fresh database with the migrations applied."""
    return make_settings(Settings, database_url=migrated_database_url("items"))


@pytest.fixture
def app(settings, fake_clock):
    """The application, with a clock that stands still."""
    return create_app(settings, clock=fake_clock)


@pytest.fixture
async def client(app, app_client):
    """A client of the running application, without a token."""
    async with app_client(app) as client:
        yield client


@pytest.fixture
def writer(token_issuer):
    """The header of somebody who may change the catalogue."""
    return token_issuer.authorization("admin", "items:write")


@pytest.fixture
def make_item(client, writer):
    """Return a function that creates an item and returns its ETag."""

    async def make(item_id, *, version="v1", **fields):
        body = {**BODY, "sku": item_id.upper(), "name": item_id, **fields}
        if version == "v2":
            del body["price"]
        answer = await client.put(f"/{version}/items/{item_id}", json=body, headers=writer)
        assert answer.status_code == 201, answer.text
        return answer.headers["ETag"]

    return make
