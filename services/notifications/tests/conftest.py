"""A notifications application on a migrated database, and what tests do with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from chassis.ids import new_id
from chassis.testing import TestIssuer, app_client
from notifications.main import create_app
from notifications.settings import Settings


@dataclass
class World:
    """One database, and applications on it."""

    issuer: TestIssuer
    settings: Settings

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Run an application and yield a client that calls it as user u1."""
        async with app_client(create_app(self.settings), headers=self.user("u1")) as client:
            yield client

    def user(self, name: str) -> dict[str, str]:
        """Return the headers of a signed-in user."""
        return self.issuer.authorization(name, "notifications:read")

    @property
    def sender(self) -> dict[str, str]:
        """The headers of a service that may notify and deliver events."""
        return self.issuer.authorization("orders", "notifications:send events:deliver")

    def event(self, kind: str = "order.confirmed", **changes: Any) -> dict[str, Any]:
        """Return a CloudEvent as orders sends it."""
        order = "0197a4f0-1111-7c3a-9a53-2f1f6c0a7d11"
        return {
            "specversion": "1.0",
            "id": new_id(),
            "source": "/services/orders",
            "type": kind,
            "subject": order,
            "time": "2026-05-04T12:00:00Z",
            "datacontenttype": "application/json",
            "data": {
                "order_id": order,
                "owner": "u1",
                "status": "confirmed",
                "total": {"amount": "25.00", "currency": "EUR"},
                "lines": [{"item_id": "desk", "name": "Desk", "quantity": 2}],
            },
            **changes,
        }

    async def deliver(self, client: httpx2.AsyncClient, event: dict[str, Any]) -> httpx2.Response:
        """Deliver an event as a relay does."""
        headers = {**self.sender, "Content-Type": "application/cloudevents+json"}
        return await client.post("/events", json=event, headers=headers)

    async def inbox(self, client: httpx2.AsyncClient, **params: str) -> list[dict[str, Any]]:
        """Return the notifications of u1."""
        answer = await client.get("/v1/notifications", params=params)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


@pytest.fixture
def world(
    migrated_database_url: Callable[[str], str],
    make_settings: Callable[..., Any],
    token_issuer: TestIssuer,
) -> World:
    """A migrated database, on SQLite and on PostgreSQL."""
    url = migrated_database_url("notifications")
    return World(token_issuer, make_settings(Settings, database_url=url, access_log=False))
