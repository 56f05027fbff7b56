"""The pytest plugin of the chassis: fixtures that every service's tests use.

Loaded by its entry point. It imports nothing of the chassis before a fixture asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    import httpx2
    from pydantic_settings import BaseSettings

    from chassis.testing.clock import FakeClock
    from chassis.testing.databases import Templates
    from chassis.testing.issuer import TestIssuer
    from chassis.testing.peer import FaultyPeer
    from chassis.testing.postgres import PostgresServer, ServerOwner
    from chassis.testing.valkey import ValkeyProcess

S = TypeVar("S", bound="BaseSettings")

_OWNER = pytest.StashKey["ServerOwner"]()
_SHARED = "slipway_postgres"


def _owner(config: pytest.Config) -> ServerOwner:
    from chassis.testing.postgres import ServerOwner  # noqa: PLC0415

    if _OWNER not in config.stash:
        config.stash[_OWNER] = ServerOwner()
    return config.stash[_OWNER]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each xdist worker where the one PostgreSQL server of this run will be."""
    node.workerinput[_SHARED] = str(_owner(node.config).base)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the PostgreSQL server of this run, if one was started."""
    if _OWNER in config.stash:
        config.stash[_OWNER].release()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio only."""
    return "asyncio"


@pytest.fixture
def problem() -> Callable[..., Any]:
    """A function that checks that an answer is a problem of this kind, and returns it."""

    def check(answer: httpx2.Response, status: int, kind: str = "") -> Any:
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == status
        assert body["type"] == (f"urn:slipway:problem:{kind}" if kind else "about:blank")
        return body

    return check


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """One real PostgreSQL server, shared by all xdist workers."""
    from chassis.testing import postgres  # noqa: PLC0415

    def base() -> Path:
        worker: dict[str, str] = getattr(pytestconfig, "workerinput", {})
        return Path(worker[_SHARED]) if worker else _owner(pytestconfig).base

    try:
        server = postgres.connect(base)
    except postgres.PostgresUnavailableError as exc:
        pytest.fail(str(exc), pytrace=False)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_dialect(request: pytest.FixtureRequest) -> str:
    """The database that this run of the test uses: `sqlite`, then `postgresql`."""
    return str(request.param)


@pytest.fixture
def database_url(
    database_dialect: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """The URL of a fresh, empty database; dropped after the test. Runs the test on each dialect."""
    if database_dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def _database_templates(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Templates]:
    from chassis.testing.databases import Templates  # noqa: PLC0415

    templates = Templates(
        tmp_path_factory.mktemp("templates"), lambda: request.getfixturevalue("postgres_server")
    )
    yield templates
    templates.drop()


@pytest.fixture
def migrated_database_url(
    database_dialect: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    _database_templates: Templates,
) -> Iterator[Callable[[str], str]]:
    """A function: `migrated_database_url("orders")` makes a fresh database with its migrations.

    The migrations run once per worker; each call copies the result. Runs the test on each dialect.
    """
    if database_dialect == "postgresql":
        request.getfixturevalue("postgres_server")
    made: list[str] = []

    def make(service: str) -> str:
        made.append(_database_templates.copy(service, database_dialect, tmp_path))
        return made[-1]

    yield make
    if database_dialect == "postgresql":
        for url in made:
            request.getfixturevalue("postgres_server").drop_database(url)


@pytest.fixture(scope="session")
def token_issuer() -> Iterator[TestIssuer]:
    """An issuer of real tokens that serves its JWKS. Shared: make your own to rotate its keys."""
    from chassis.testing.issuer import TestIssuer  # noqa: PLC0415

    with TestIssuer() as issuer:
        yield issuer


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that begins now and stands still until `advance(seconds)`."""
    from chassis.testing.clock import FakeClock  # noqa: PLC0415

    return FakeClock()


@pytest.fixture
async def faulty_peer() -> AsyncIterator[FaultyPeer]:
    """A real server on loopback that can refuse, reset, hang, be slow or talk nonsense."""
    from chassis.testing.peer import FaultyPeer  # noqa: PLC0415

    async with FaultyPeer() as peer:
        yield peer


@pytest.fixture
def valkey_process(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A real Valkey server, empty, for this test alone; it can be killed and started again."""
    from chassis.testing.valkey import ValkeyProcess, ValkeyUnavailableError  # noqa: PLC0415

    server = ValkeyProcess(tmp_path / "valkey")
    try:
        server.start()
    except ValkeyUnavailableError as exc:
        pytest.fail(str(exc), pytrace=False)
    yield server
    server.kill()


@pytest.fixture
def make_settings(token_issuer: TestIssuer, tmp_path: Path) -> Callable[..., Any]:
    """A function: `make_settings(Settings, port=1)` builds settings that ignore the environment.

    Tokens of `token_issuer` are accepted, and it also plays auth. `database_url`, when the class
    has one and none is given, is an empty SQLite file.
    """
    from chassis.testing.databases import hermetic_settings, sqlite_url  # noqa: PLC0415

    def make(cls: type[S], **overrides: Any) -> S:
        values: dict[str, Any] = {
            "environment": "test",
            "issuer": token_issuer.issuer,
            "audience": token_issuer.audience,
            "auth_url": token_issuer.url,
            "jwks_url": token_issuer.jwks_url,
            "client_secret": "only-for-tests",
            "database_url": sqlite_url(tmp_path / "settings.db"),
        }
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        return hermetic_settings(cls, {**known, **overrides})

    return make


@pytest.fixture
def app_client() -> Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]:
    """Make in-process clients, which run the lifespan of their app."""
    from chassis.testing.servers import app_client as client  # noqa: PLC0415

    return client


@pytest.fixture
def serve_app() -> Callable[..., AbstractAsyncContextManager[str]]:
    """Serve apps by uvicorn on free ports; the context manager gives the base URL."""
    from chassis.testing.servers import running_app  # noqa: PLC0415

    return running_app
