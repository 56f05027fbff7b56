"""Sessions in requests: a 2xx means committed; a database that is away means 503, for a while."""

import asyncio
import os
import pwd
import signal
import sqlite3
import subprocess
from contextlib import closing, contextmanager

import httpx2
import psycopg
import pytest
from fastapi import APIRouter
from sqlalchemy import text

from chassis import create_app
from chassis.database import ReadSessionDep, SessionDep
from chassis.problems import Problem
from chassis.settings import DatabaseSettings
from chassis.testing import _supervisor, postgres
from chassis.testing.servers import lifespan

SCHEMA = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    """CREATE TABLE children (id INTEGER PRIMARY KEY,
    parent_id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)""",
)


@contextmanager
def outside(url):
    """Open a connection that has nothing to do with the chassis."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield connection
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


def create_schema(url):
    with outside(url) as connection:
        for statement in SCHEMA:
            connection.execute(statement)


def count(url, table):
    with outside(url) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.fixture
def make_app(make_settings):
    def make(url, **settings):
        router = APIRouter()

        @router.post("/parents/{number}", status_code=201)
        async def add_parent(number: int, session: SessionDep) -> dict[str, int]:
            await session.execute(text(f"INSERT INTO parents VALUES ({number})"))
            return {"id": number}

        @router.post("/children", status_code=201)
        async def add_child(session: SessionDep) -> dict[str, bool]:
            await session.execute(text("INSERT INTO children VALUES (1, 99)"))
            return {"ok": True}

        @router.post("/refused")
        async def refuse(session: SessionDep) -> None:
            await session.execute(text("INSERT INTO parents VALUES (7)"))
            raise Problem(409)

        @router.get("/parents")
        async def read(session: ReadSessionDep) -> int:
            return int(await session.scalar(text("SELECT count(*) FROM parents")) or 0)

        @router.get("/fault")
        async def fault(session: ReadSessionDep) -> None:
            await session.execute(text("SELECT * FROM absent"))

        return create_app(
            make_settings(DatabaseSettings, database_url=url, **settings),
            title="t",
            description="t",
            routers=[router],
        )

    return make


async def test_a_commit_that_fails_is_an_error_and_never_a_2xx(make_app, database_url, app_client):
    """The handler returned 201; the deferred key fails at the commit; the client sees a problem."""
    create_schema(database_url)
    async with app_client(make_app(database_url), raise_app_exceptions=False) as client:
        response = await client.post("/children")
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert "parents" not in response.text
        assert count(database_url, "children") == 0
        assert (await client.post("/parents/1")).status_code == 201


async def test_the_data_is_readable_by_others_when_the_response_starts(make_app, database_url):
    """Before the first byte of a 2xx another connection can read the row."""
    create_schema(database_url)
    app = make_app(database_url)
    seen = []

    async def send(message):
        if message["type"] == "http.response.start":
            seen.append((message["status"], count(database_url, "parents")))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async with lifespan(app) as state:
        for number in range(1, 6):
            path = f"/parents/{number}"
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": b"",
                "headers": [(b"host", b"t")],
                "client": ("127.0.0.1", 1),
                "server": ("t", 80),
                "state": dict(state),
            }
            await app(scope, receive, send)
    assert seen == [(201, number) for number in range(1, 6)]


async def test_an_error_rolls_back(make_app, database_url, app_client):
    create_schema(database_url)
    async with app_client(make_app(database_url)) as client:
        assert (await client.post("/refused")).status_code == 409
        assert (await client.get("/parents")).json() == 0


async def test_a_fault_of_the_code_is_500(make_app, database_url, app_client):
    """A missing table is a bug, and 503 would hide it."""
    create_schema(database_url)
    async with app_client(make_app(database_url), raise_app_exceptions=False) as client:
        response = await client.get("/fault")
        assert response.status_code == 500
        assert "absent" not in response.text


async def test_a_locked_sqlite_is_503_and_recovers(make_app, make_settings, tmp_path, app_client):
    """Another process holds the write lock for longer than the timeout; reads go on meanwhile."""
    url = f"sqlite:///{tmp_path / 'locked.db'}"
    create_schema(url)
    async with app_client(make_app(url, statement_timeout_seconds=0.1)) as client:
        assert (await client.get("/parents")).json() == 0
        with outside(url) as other:
            other.execute("BEGIN IMMEDIATE")
            response = await client.post("/parents/1")
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["type"] == "urn:slipway:problem:database-unavailable"
            assert (await client.get("/parents")).status_code == 200
            other.execute("ROLLBACK")
        assert (await client.post("/parents/1")).status_code == 201


async def until(condition):
    """Poll, at most a minute: the other side is another process."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (no event crosses processes)
            await asyncio.sleep(0.01)


class Server:
    """A PostgreSQL server of this test alone, to be stopped and started."""

    def __init__(self):
        self.owner = postgres.ServerOwner()
        server = postgres.start_shared_server(self.owner.base)
        self.url = server.create_database()
        server.close()
        self.restarted = None

    async def stop(self, sig):
        """Stop the server: SIGINT ends its sessions in order, SIGQUIT is a crash."""
        pid_file = self.owner.base / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().split()[0]), sig)
        await until(lambda: not self.accepts())

    def accepts(self):
        """Tell whether the server takes connections."""
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    async def start(self):
        """Start the server again on the same data."""
        user = postgres._unprivileged_user()
        base = self.owner.base
        (base / "data" / "postmaster.pid").unlink(missing_ok=True)
        command = [str(postgres._binaries(base, user) / "postgres"), "-D", str(base / "data")]
        for name, value in {
            **_supervisor.SETTINGS,
            "unix_socket_directories": str(base / "run"),
        }.items():
            command += ["-c", f"{name}={value}"]
        self.restarted = subprocess.Popen(  # noqa: ASYNC220  (it outlives this function)
            command,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await until(self.accepts)

    def close(self):
        """Stop the server for good and remove its files."""
        if self.restarted is not None:
            self.restarted.send_signal(signal.SIGINT)
            self.restarted.wait()
        self.owner.release()


@pytest.fixture
def own_server(anyio_backend):
    if os.environ.get(postgres.OWN_SERVER):
        pytest.skip("this test stops its PostgreSQL server; a given one must not be stopped")
    server = Server()
    yield server
    server.close()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_stopped_postgresql_is_503_and_recovers_by_itself(
    make_app, own_server, serve_app, sig
):
    """The server is really stopped and started; every answer meanwhile is a 503 problem."""
    create_schema(own_server.url)
    app = make_app(own_server.url, database_pool_size=4)
    async with serve_app(app) as base, httpx2.AsyncClient(base_url=base, timeout=30) as client:
        # Fill the pool, so that dead connections are in it.
        answers = await asyncio.gather(*(client.post(f"/parents/{each}") for each in range(8)))
        assert {answer.status_code for answer in answers} == {201}
        await own_server.stop(sig)
        for _ in range(3):
            for response in (await client.get("/parents"), await client.post("/parents/100")):
                assert response.status_code == 503
                assert response.headers["retry-after"] == "1"
                assert response.headers["content-type"] == "application/problem+json"
                assert "psycopg" not in response.text
        assert (await client.get("/livez")).status_code == 200
        await own_server.start()
        answers = await asyncio.gather(*(client.post(f"/parents/{each}") for each in range(8, 16)))
        assert {answer.status_code for answer in answers} == {201}
        assert (await client.get("/parents")).json() == 16


async def test_connections_that_died_while_idle_are_not_noticed(
    make_app, serve_app, postgres_server
):
    """The sessions are ended by an administrator; each is replaced before it is used."""
    url = postgres_server.create_database()
    create_schema(url)
    async with (
        serve_app(make_app(url)) as base,
        httpx2.AsyncClient(base_url=base, timeout=60) as client,
    ):
        assert (await client.get("/parents")).status_code == 200
        with outside(url) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert (await client.get("/parents")).status_code == 200
    postgres_server.drop_database(url)
