"""Fixtures of the tests of trainers: the application on each database, staff, and members."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from chassis.runtime import Runtime
from chassis.testing import FakeClock, TestIssuer
from trainers.main import create_app
from trainers.models import READ_MODEL
from trainers.settings import Settings

# A Monday; in Berlin 07:00.
NOW = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)
WEEK = {
    "time_zone": "Europe/Berlin",
    "slots": [
        {"day": "monday", "starts": "09:00:00", "ends": "10:00:00"},
        {"day": "monday", "starts": "10:00:00", "ends": "11:00:00"},
        {"day": "friday", "starts": "17:30:00", "ends": "18:15:00"},
    ],
}
NINE = "2026-11-30T09:00:00+01:00"
TEN = "2026-11-30T10:00:00+01:00"


@dataclass
class Gym:
    """A running application, and what staff and members do with it."""

    client: httpx2.AsyncClient
    issuer: TestIssuer
    runtime: Runtime
    clock: FakeClock

    @property
    def staff(self) -> dict[str, str]:
        """The headers of an administrator."""
        return self.member("admin", "trainers:read trainers:book trainers:write")

    def member(self, name: str, scopes: str = "trainers:read trainers:book") -> dict[str, str]:
        """The headers of a member."""
        # The clock of the tests stands still; the tokens are of its time.
        return self.issuer.authorization(
            name, scopes, expires_in=10**8, issued_at=NOW.timestamp() - 86_400
        )

    async def command(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: dict[str, str] | None = None,
        **h: str,
    ) -> httpx2.Response:
        """Send a command; `h` are headers, with _ for -."""
        headers = {**(who or self.staff), **{k.replace("_", "-"): v for k, v in h.items()}}
        return await self.client.request(method, f"/v1/trainers{path}", json=body, headers=headers)

    async def ask(
        self, path: str, *, who: dict[str, str] | None = None, **params: Any
    ) -> httpx2.Response:
        """Ask a query."""
        return await self.client.get(
            f"/v1/trainers{path}", params=params, headers=who or self.staff
        )

    async def register(self, name: str = "Ada Park", week: Any = WEEK) -> str:
        """Register a trainer who has slots; their id."""
        done = await self.command("POST", "", {"name": name, "bio": "Strong."})
        assert done.status_code == 201, done.text
        trainer = str(done.json()["trainer_id"])
        if week:
            set_ = await self.command("PUT", f"/{trainer}/availability", week, If_Match='"1"')
            assert set_.status_code == 202, set_.text
        return trainer

    async def book(
        self, trainer: str, member: str = "m1", at: str = NINE, **h: str
    ) -> httpx2.Response:
        """Book a slot as a member."""
        return await self.command(
            "POST", f"/{trainer}/sessions", {"starts_at": at}, who=self.member(member), **h
        )

    async def session(self, trainer: str, member: str = "m1", at: str = NINE) -> str:
        """Book a slot; the session's id."""
        done = await self.book(trainer, member, at)
        assert done.status_code == 201, done.text
        return str(done.json()["session_id"])

    async def rate(self, trainer: str, session: str, member: str, stars: int) -> httpx2.Response:
        """Rate a session as its member."""
        return await self.command(
            "PUT",
            f"/{trainer}/sessions/{session}/rating",
            {"stars": stars},
            who=self.member(member),
        )


@pytest.fixture
def clock():
    """A clock that stands on a Monday morning."""
    return FakeClock(NOW)


@pytest.fixture
def settings(migrated_database_url, make_settings):
    """Settings on a fresh database; nothing gives up while the machine is busy."""
    return make_settings(
        Settings,
        database_url=migrated_database_url("trainers"),
        database_pool_timeout_seconds=60,
        request_timeout_seconds=60,
        projector_poll_seconds=0.02,
        read_wait_seconds=45,
        access_log=False,
    )


@pytest.fixture
def open_gym(settings, app_client, token_issuer, clock):
    """A function that runs an application, by default both sides; `changes` are settings."""

    @asynccontextmanager
    async def run(**changes):
        app = create_app(settings.model_copy(update=changes), clock=clock)
        async with app_client(app) as client:
            yield Gym(client, token_issuer, app.state.runtime, clock)

    return run


@pytest.fixture
async def gym(open_gym):
    """Both sides in one process."""
    async with open_gym() as gym:
        yield gym


@pytest.fixture
def read_model():
    """A function that returns every row of the read model of a database."""

    async def read(database):
        async with database.reading() as session:
            return {
                table.name: sorted(map(repr, (await session.execute(select(table))).all()))
                for table in READ_MODEL
            }

    return read


@pytest.fixture
def eventually():
    """A function that polls a condition until it holds, for at most a minute."""

    async def wait(condition):
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110  (the state is in a database)
                await asyncio.sleep(0.01)

    return wait
