"""The tasks application on each database, and what tests do with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chassis.database import Database
from chassis.events.tables import outbox
from chassis.testing import FakeClock, TestIssuer, app_client
from tasks.main import create_app
from tasks.settings import Settings

SCOPES = "tasks:read tasks:write"
ADA, BOB = "ada", "bob"


class World:
    """One database and one clock, and applications on them."""

    def __init__(self, settings: Settings, issuer: TestIssuer, clock: FakeClock) -> None:
        self.settings = settings
        self.issuer = issuer
        self.clock = clock

    def app(self, **overrides: Any) -> FastAPI:
        """Return an application whose clock stands still."""
        return create_app(self.settings.model_copy(update=overrides), clock=self.clock)

    def user(self, name: str, scopes: str = SCOPES) -> dict[str, str]:
        """Return the headers of a user who signed in now, by this clock, for a week."""
        now = self.clock.now().timestamp()
        return self.issuer.authorization(name, scopes, issued_at=now, expires_in=7 * 86400)

    @asynccontextmanager
    async def client(self, **overrides: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Run an application and yield a client that calls it as Ada."""
        async with app_client(self.app(**overrides), headers=self.user(ADA)) as client:
            yield client

    def at(self, hours: float) -> str:
        """Return the time so many hours from now, in UTC, as the API answers it."""
        return (self.clock.now() + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")

    async def published(self) -> list[tuple[str, str]]:
        """Return (type, subject) of the events that were written, oldest first."""
        database = Database(self.settings)
        try:
            async with database.reading() as session:
                rows = await session.execute(
                    select(outbox.c.type, outbox.c.subject).order_by(outbox.c.seq)
                )
                return [(row.type, row.subject) for row in rows]
        finally:
            await database.close()


@pytest.fixture
def world(
    migrated_database_url: Callable[[str], str],
    make_settings: Callable[..., Any],
    token_issuer: TestIssuer,
    fake_clock: FakeClock,
) -> World:
    """A migrated database, on SQLite and on PostgreSQL. Events go nowhere."""
    settings = make_settings(
        Settings,
        database_url=migrated_database_url("tasks"),
        subscribers={"task.due-soon": ["http://127.0.0.1:9/events"]},
        # Nothing gives up while the machine is busy.
        database_pool_timeout_seconds=60,
        request_timeout_seconds=60,
        peer_connect_timeout_seconds=10,
        access_log=False,
    )
    return World(settings, token_issuer, fake_clock)


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a running application, as Ada."""
    async with world.client() as client:
        yield client


@pytest.fixture
def make(client: httpx2.AsyncClient) -> Callable[..., Any]:
    """Return a function that creates a task and returns it."""

    async def create(title: str = "Pay the rent", **fields: Any) -> dict[str, Any]:
        answer = await client.post("/v1/tasks", json={"title": title, **fields})
        assert answer.status_code == 201, answer.text
        task: dict[str, Any] = answer.json()
        return task

    return create


@pytest.fixture
def based_on() -> Callable[[dict[str, Any]], dict[str, str]]:
    """A function: the precondition of a change that is based on this state of a task."""
    return lambda task: {"If-Match": f'"{task["version"]}"'}
