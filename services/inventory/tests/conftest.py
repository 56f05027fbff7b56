"""Fixtures of the tests of inventory: the application on each database, stock, and callers."""

import asyncio

import pytest

from chassis.database import Database
from inventory.audit import audit
from inventory.main import create_app
from inventory.settings import Settings


@pytest.fixture
def settings(migrated_database_url, make_settings):
    """Settings on a fresh database; nothing gives up while the machine is busy."""
    return make_settings(
        Settings,
        database_url=migrated_database_url("inventory"),
        database_pool_timeout_seconds=60,
        request_timeout_seconds=60,
    )


@pytest.fixture
def app(settings, fake_clock):
    """The application, with a clock that stands still."""
    return create_app(settings, clock=fake_clock)


@pytest.fixture
async def client(app, app_client, token_issuer):
    """A client of the running application that may reserve, as orders may."""
    headers = token_issuer.authorization("orders", "inventory:reserve")
    async with app_client(app, headers=headers) as client:
        yield client


@pytest.fixture
def writer(token_issuer):
    """The header of somebody who may change the stock."""
    return token_issuer.authorization("admin", "inventory:write")


@pytest.fixture
def database(app, client):
    """The database of the running application."""
    return app.state.runtime.database


@pytest.fixture
def put_stock(client, writer):
    """Return a function that sets the stock of items."""

    async def put(**levels):
        for item_id, on_hand in levels.items():
            answer = await client.put(
                f"/v1/stock/{item_id}", json={"on_hand": on_hand}, headers=writer
            )
            assert answer.status_code in {200, 201}, answer.text

    return put


@pytest.fixture
def level(client):
    """A function that reads (on hand, held) of an item."""

    async def read(item_id):
        body = (await client.get(f"/v1/stock/{item_id}")).json()
        assert body["available"] == body["on_hand"] - body["held"]
        return body["on_hand"], body["held"]

    return read


@pytest.fixture
def reserve(client):
    """Return a function that reserves units of items."""

    async def send(reservation_id, seconds=None, **lines):
        body = {
            "id": reservation_id,
            "lines": [{"item_id": item, "quantity": count} for item, count in lines.items()],
        }
        if seconds is not None:
            body["expires_in_seconds"] = seconds
        return await client.post("/v1/reservations", json=body)

    return send


@pytest.fixture
def confirm(client):
    """A function that confirms a reservation."""
    return lambda reservation_id: client.post(f"/v1/reservations/{reservation_id}/confirm")


@pytest.fixture
def release(client):
    """A function that releases a reservation."""
    return lambda reservation_id: client.post(f"/v1/reservations/{reservation_id}/release")


@pytest.fixture
def adds_up(settings):
    """A function that audits the database and fails on any mismatch."""

    async def check():
        database = Database(settings)
        try:
            result = await audit(database)
        finally:
            await database.close()
        assert result.mismatches == []
        return result

    return check


@pytest.fixture
def eventually():
    """A function that polls a condition until it holds, for at most a minute."""

    async def wait(condition):
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110  (the state is in a database)
                await asyncio.sleep(0.01)

    return wait
