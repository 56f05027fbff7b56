"""Fixtures of the tests of auth: an application on each database, and a client that knows it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import create_engine, insert
from sqlalchemy.pool import NullPool

from auth.main import create_app
from auth.models import Base, SigningKey
from auth.sealing import Sealer, parse_keys
from auth.settings import Settings
from auth.state import Auth
from auth.state import running as running_parts
from chassis.clock import Clock, SystemClock
from chassis.database import async_url
from chassis.runtime import Runtime
from chassis.testing.clock import FakeClock

EMAIL = "ada@example.com"
PASSWORD = "seven wet otters hum"
CLIENTS = {
    "orders": {"secret": "orders-secret-1234", "scopes": ["inventory:reserve", "events:deliver"]},
    "odd": {"secret": "p%2+ ss:wörd", "scopes": ["notifications:send"]},
}
KEY_ENCRYPTION_KEY = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="
DEFAULTS: dict[str, Any] = {
    # Cheap argon2: the settings refuse it in production.
    "argon2_memory_kib": 8,
    "argon2_passes": 1,
    "clients": CLIENTS,
    # A busy machine must not turn a test of many requests at once into one of overload.
    "database_pool_timeout_seconds": 60,
    "statement_timeout_seconds": 60,
    "request_timeout_seconds": 60,
}


class Api:
    """The requests that tests repeat."""

    email = EMAIL
    password = PASSWORD

    def __init__(self, http: httpx2.AsyncClient, app: Any) -> None:
        self.http = http
        self.app = app

    @property
    def auth(self) -> Auth:
        """The parts inside."""
        parts = self.app.state.runtime.extras["auth"]
        assert isinstance(parts, Auth)
        return parts

    async def sign_up(self, email: str = EMAIL, password: str = PASSWORD) -> httpx2.Response:
        """Make an account."""
        return await self.http.post("/v1/users", json={"email": email, "password": password})

    async def log_in(
        self, email: str = EMAIL, password: str = PASSWORD, **form: str
    ) -> httpx2.Response:
        """Ask for tokens by password."""
        data = {"grant_type": "password", "username": email, "password": password, **form}
        return await self.http.post("/v1/token", data=data)

    async def refresh(self, token: str, **form: str) -> httpx2.Response:
        """Exchange a refresh token."""
        data = {"grant_type": "refresh_token", "refresh_token": token, **form}
        return await self.http.post("/v1/token", data=data)

    async def session(self, email: str = EMAIL) -> dict[str, Any]:
        """Sign up, log in and return the token response."""
        assert (await self.sign_up(email)).status_code == 201
        answer = await self.log_in(email)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def bearer(self, email: str = EMAIL) -> dict[str, str]:
        """Sign up, log in and return the header that carries the token."""
        return {"Authorization": f"Bearer {(await self.session(email))['access_token']}"}

    def metric(self, name: str, **labels: str) -> float:
        """Read a metric; 0 if it was never touched."""
        return self.app.state.runtime.registry.get_sample_value(name, labels) or 0.0


OpenApi = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture(scope="session")
def signing_key() -> RSAKey:
    """A signing key. Making one takes long; tests share it."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


@pytest.fixture(scope="session")
def stored_key(signing_key: RSAKey) -> SigningKey:
    """The signing key as the database holds it."""
    sealer, kid = Sealer(parse_keys(KEY_ENCRYPTION_KEY)), str(signing_key.kid)
    now = datetime.now(UTC).replace(microsecond=0)
    private = json.dumps(signing_key.as_dict(private=True)).encode()
    return SigningKey(
        generation=1,
        kid=kid,
        sealed=sealer.seal(kid, private),
        created_at=now,
        activates_at=now,
    )


def store(url: str, row: Base) -> None:
    """Write a row beside the application."""
    driver = "sqlite+pysqlite" if url.startswith("sqlite") else "postgresql+psycopg"
    engine = create_engine(async_url(url).set(drivername=driver), poolclass=NullPool)
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    with engine.begin() as connection:
        connection.execute(insert(type(row)).values(values))
    engine.dispose()


@pytest.fixture
def auth_settings(
    make_settings: Callable[..., Settings],
    migrated_database_url: Callable[[str], str],
    stored_key: SigningKey,
) -> Callable[..., Settings]:
    """A function: settings of auth on a fresh migrated database; runs the test on each dialect.

    With a `key_encryption_key` of the test's own the database begins without a signing key.
    """
    url = migrated_database_url("auth")
    stored: list[SigningKey] = []

    def make(**overrides: Any) -> Settings:
        if "key_encryption_key" not in overrides:
            overrides["key_encryption_key"] = KEY_ENCRYPTION_KEY
            if not stored:
                store(url, stored_key)
                stored.append(stored_key)
        return make_settings(
            Settings,
            **{**DEFAULTS, "issuer": "http://auth.test", "database_url": url, **overrides},
        )

    return make


@pytest.fixture
def store_row() -> Callable[[str, Base], None]:
    """A function that writes a row beside the application: `store_row(url, User(...))`."""
    return store


@pytest.fixture
def open_api(auth_settings: Callable[..., Settings], app_client: Any) -> OpenApi:
    """Return a context manager that opens the application with other settings."""

    @asynccontextmanager
    async def opened(*, clock: Clock | None = None, **overrides: Any) -> AsyncIterator[Api]:
        app = create_app(auth_settings(access_log=False, **overrides), clock=clock)
        async with app_client(app, raise_app_exceptions=False) as http:
            yield Api(http, app)

    return opened


@pytest.fixture
async def api(open_api: OpenApi) -> AsyncIterator[Api]:
    """The application with default settings, on each dialect."""
    async with open_api() as opened:
        yield opened


@pytest.fixture
async def timed_api(open_api: OpenApi, fake_clock: FakeClock) -> AsyncIterator[Api]:
    """The application on a clock that only the test moves."""
    async with open_api(clock=fake_clock) as opened:
        yield opened


@pytest.fixture
def open_parts(auth_settings: Callable[..., Settings]) -> Any:
    """Return a context manager that opens the domain, without HTTP."""

    @asynccontextmanager
    async def opened(*, clock: Clock | None = None, **overrides: Any) -> AsyncIterator[Auth]:
        from prometheus_client import CollectorRegistry

        runtime = Runtime(
            auth_settings(**overrides), clock=clock or SystemClock(), registry=CollectorRegistry()
        )
        try:
            async with running_parts(runtime):
                yield runtime.extras["auth"]
        finally:
            await runtime.close()

    return opened
