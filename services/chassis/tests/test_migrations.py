"""Migrations: one process at a time, all or nothing, drift found."""

import asyncio
import os
import secrets
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import psycopg
import pytest

from chassis.migrations import (
    MigrationError,
    MigrationStatus,
    migrate,
    migrations_directory,
    needs_migration,
    status,
)
from chassis.settings import DatabaseSettings

MODELS = """
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
    from chassis.database import NAMING, UtcDateTime
    from chassis.money import ExactDecimal

    metadata = MetaData(naming_convention=NAMING)
    parents = Table(
        "parents", metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(20), nullable=False),
        Column("price", ExactDecimal, nullable=False),
        Column("at", UtcDateTime),
    )
    children = Table(
        "children", metadata,
        Column("id", Integer, primary_key=True),
        Column("parent_id", ForeignKey("parents.id", ondelete="CASCADE"), nullable=False),
    )
"""

FIRST = """
    import sqlalchemy as sa
    from alembic import op
    from chassis.database import UtcDateTime
    from chassis.events.schema import create_outbox_v1, create_inbox_v1, create_idempotency_v1
    from chassis.money import ExactDecimal

    revision, down_revision = "0001", None

    def upgrade():
        op.create_table(
            "parents",
            sa.Column("id", sa.Integer, nullable=False),
            sa.Column("name", sa.String(20), nullable=False),
            sa.Column("price", ExactDecimal, nullable=False),
            sa.Column("at", UtcDateTime),
            sa.PrimaryKeyConstraint("id", name="pk_parents"),
        )
        op.create_table(
            "children",
            sa.Column("id", sa.Integer, nullable=False),
            sa.Column("parent_id", sa.Integer, nullable=False),
            sa.PrimaryKeyConstraint("id", name="pk_children"),
            sa.ForeignKeyConstraint(
                ["parent_id"], ["parents.id"], name="fk_children_parent_id_parents",
                ondelete="CASCADE",
            ),
        )
        create_outbox_v1(op)
        create_inbox_v1(op)
        create_idempotency_v1(op)
        op.execute("INSERT INTO parents (id, name, price) VALUES (1, 'one', 10000)")
        op.execute("INSERT INTO children (id, parent_id) VALUES (1, 1)")
"""

ENV = """
    from chassis.migrations import env_run
    from {service}.models import metadata
    env_run(metadata)
"""

MIGRATION = """\
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{revision}", "{down}"

def upgrade():
{body}
"""

# One process imports, then forks: eight interpreters that start would take most of the time.
MANY = """
import asyncio, os, sys
from chassis.migrations import migrate
from chassis.settings import load_settings
from {service}.settings import Settings

children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(migrate("{service}", load_settings(Settings)))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


class Service:
    """A package with migrations, made for one test."""

    def __init__(self, root, url):
        self.name = f"service_{secrets.token_hex(4)}"
        self.root = root
        self.url = url
        self.write(f"{self.name}/__init__.py", "")
        self.write(f"{self.name}/models.py", MODELS)
        self.write(
            f"{self.name}/settings.py",
            f"""
            from chassis.settings import DatabaseSettings, settings_config

            class Settings(DatabaseSettings):
                model_config = settings_config("{self.name}")
                service_name: str = "service-under-test"
            """,
        )
        self.write("migrations/env.py", ENV.format(service=self.name))
        self.write("migrations/versions/0001_first.py", FIRST)

    def write(self, path, text):
        """Write a file of the package."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))

    def add(self, revision, down, body):
        """Write a migration whose upgrade has this body."""
        text = MIGRATION.format(
            revision=revision,
            down=down,
            body=textwrap.indent(textwrap.dedent(body).strip(), "    "),
        )
        (self.root / f"migrations/versions/{revision}_more.py").write_text(text)

    def query(self, sql):
        """Return the rows that a connection outside the chassis sees."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
                return connection.execute(sql).fetchall()
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql).fetchall()

    def command(self, *arguments):
        """Return the command that migrates, and its environment."""
        variable = f"{self.name.upper()}_DATABASE_URL"
        return [sys.executable, "-m", "chassis", "migrate", self.name, *arguments], {
            **os.environ,
            variable: self.url,
            "PYTHONPATH": str(self.root),
        }

    def run(self, *arguments):
        """Migrate by the command, to its end."""
        command, env = self.command(*arguments)
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


async def until(condition):
    """Poll, within a bound: the other side is another process."""
    async with asyncio.timeout(240):
        while not condition():  # noqa: ASYNC110  (no event crosses processes)
            await asyncio.sleep(0.01)


@pytest.fixture
def service(tmp_path, database_url, monkeypatch):
    root = tmp_path / "a % path"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    return Service(root, database_url)


@pytest.fixture
def settings(make_settings, database_url):
    return make_settings(DatabaseSettings, database_url=database_url)


async def test_migrate_brings_an_empty_database_up_to_date(service, settings):
    """Afterwards nothing is pending, nothing differs from the models, and a second run is fine."""
    assert await needs_migration(service.name, settings)
    await migrate(service.name, settings)
    await migrate(service.name, settings)
    assert await status(service.name, settings) == MigrationStatus(("0001",), ("0001",))
    assert not await needs_migration(service.name, settings)
    assert service.query("SELECT name FROM parents") == [("one",)]


async def test_looking_changes_nothing(service, settings):
    """Asking for the state of an empty database creates no table in it."""
    found = await status(service.name, settings)
    assert found == MigrationStatus((), ("0001",))
    assert found.pending
    tables = (
        "sqlite_master" if settings.database_url.startswith("sqlite") else "pg_stat_user_tables"
    )
    assert service.query(f"SELECT count(*) FROM {tables}") == [(0,)]


async def test_models_that_drifted_from_the_migrations_are_told(service, settings):
    """A column that a model has and no migration made, and one the other way round."""
    service.add("0002", "0001", 'op.add_column("parents", sa.Column("forgotten", sa.Integer))')
    models = textwrap.dedent(MODELS).replace(
        'Column("at", UtcDateTime)', 'Column("at", UtcDateTime), Column("new", Integer)'
    )
    service.write(f"{service.name}/models.py", models)
    await migrate(service.name, settings)
    drift = (await status(service.name, settings)).drift
    assert sorted(drift) == [
        "add_column parents parents.new",
        "remove_column parents parents.forgotten",
    ]


async def test_a_migration_that_fails_half_way_leaves_nothing_of_itself(service, settings):
    """The one before it stays, its own table and rows do not; the next run can go on."""
    service.add("0002", "0001", "op.execute(\"UPDATE parents SET name = 'two'\")")
    service.add(
        "0003",
        "0002",
        """
        op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
        op.execute("UPDATE parents SET name = 'three'")
        op.execute("INSERT INTO absent VALUES (1)")
        """,
    )
    with pytest.raises(MigrationError) as raised:
        await migrate(service.name, settings)
    assert str(raised.value).startswith(f"{service.name}: ")
    assert "absent" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert service.query("SELECT version_num FROM alembic_version") == [("0002",)]
    assert service.query("SELECT name FROM parents") == [("two",)]
    with pytest.raises((sqlite3.OperationalError, psycopg.errors.UndefinedTable)):
        service.query("SELECT * FROM half")
    (service.root / "migrations/versions/0003_more.py").unlink()
    service.add("0003", "0002", 'op.create_table("half", sa.Column("id", sa.Integer))')
    await migrate(service.name, settings)
    assert service.query("SELECT count(*) FROM half") == [(0,)]


async def test_a_batch_migration_keeps_the_rows_that_refer_to_the_table(service, settings):
    """SQLite rebuilds a table to alter it; dropping the old one must not cascade."""
    service.add(
        "0002",
        "0001",
        """
        with op.batch_alter_table("parents") as batch:
            batch.alter_column("name", type_=sa.String(40), existing_nullable=False)
            batch.add_column(sa.Column("note", sa.String(10)))
        """,
    )
    await migrate(service.name, settings)
    assert service.query("SELECT parent_id FROM children") == [(1,)]


async def test_a_migration_that_leaves_dangling_keys_is_rolled_back(service, settings):
    """On both databases the key is enforced, on SQLite at the end of the migration."""
    service.add("0002", "0001", 'op.execute("INSERT INTO children (id, parent_id) VALUES (2, 9)")')
    with pytest.raises(MigrationError):
        await migrate(service.name, settings)
    assert service.query("SELECT id FROM children") == [(1,)]
    assert service.query("SELECT version_num FROM alembic_version") == [("0001",)]


async def test_a_newer_database_is_left_alone(service, settings):
    """Older code starts on it (a rolling update), but does not migrate it."""
    service.add("0002", "0001", "op.execute(\"UPDATE parents SET name = 'two'\")")
    await migrate(service.name, settings)
    (service.root / "migrations/versions/0002_more.py").unlink()
    assert not await needs_migration(service.name, settings)
    assert (await status(service.name, settings)).ahead
    with pytest.raises(MigrationError, match="0002, which this code does not have"):
        await migrate(service.name, settings)


@pytest.mark.timeout(300)
async def test_eight_processes_at_once_migrate_once(service, settings):
    """A migration that must run only once, and takes a while, runs only once."""
    service.add(
        "0002",
        "0001",
        """
        import time
        op.execute("INSERT INTO parents (id, name, price) VALUES (2, 'once', 1)")
        time.sleep(0.5)
        """,
    )
    _, env = service.command()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MANY.format(service=service.name), env=env, stderr=subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode == 0, error
    assert service.query("SELECT count(*) FROM parents") == [(2,)]
    assert not await needs_migration(service.name, settings)


@pytest.mark.timeout(300)
async def test_who_waits_too_long_for_another_migration_is_told(service, settings):
    """The lock is really held by the other one: here, a migration that lets us in the middle."""
    flag, go = service.root / "flag", service.root / "go"
    service.add(
        "0002",
        "0001",
        f"""
        import pathlib, time
        pathlib.Path({str(flag)!r}).touch()
        while not pathlib.Path({str(go)!r}).exists():
            time.sleep(0.01)
        """,
    )
    command, env = service.command()
    process = await asyncio.create_subprocess_exec(*command, env=env, stderr=subprocess.PIPE)
    try:
        await until(flag.exists)
        with pytest.raises(MigrationError, match="another process is still migrating"):
            await migrate(service.name, settings, lock_wait_seconds=0.2)
    finally:
        go.touch()
        _, error = await process.communicate()
    assert process.returncode == 0, error


@pytest.mark.timeout(300)
async def test_a_killed_migration_frees_its_lock(service, settings):
    """After kill -9 in the middle the next one takes over and finishes."""
    flag = service.root / "flag"
    service.add(
        "0002",
        "0001",
        f"""
        import pathlib, time
        op.execute("UPDATE parents SET name = 'two'")
        if not pathlib.Path({str(flag)!r}).exists():
            pathlib.Path({str(flag)!r}).touch()
            time.sleep(60)
        """,
    )
    command, env = service.command()
    process = await asyncio.create_subprocess_exec(*command, env=env)
    await until(flag.exists)
    process.kill()
    await process.wait()
    await migrate(service.name, settings, lock_wait_seconds=30)
    assert service.query("SELECT name FROM parents") == [("two",)]


@pytest.mark.timeout(300)
def test_the_command(service):
    """0 and silence when it worked; `--check` and a failure are one line and not 0."""
    check = service.run("--check")
    assert check.returncode == 1
    assert (check.stdout + check.stderr).count("\n") == 1
    done = service.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    service.add("0002", "0001", 'op.execute("INSERT INTO absent VALUES (1)")')
    failed = service.run()
    assert failed.returncode not in {0, 1}
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"{service.name}: ")


async def test_a_database_that_is_away_is_one_line(make_settings, service):
    """Not a stack trace; the password is not in it."""
    settings = make_settings(
        DatabaseSettings, database_url="postgresql://someone:hidden-word@127.0.0.1:1/x"
    )
    with pytest.raises(MigrationError) as raised:
        await migrate(service.name, settings)
    assert "\n" not in str(raised.value)
    assert "hidden-word" not in str(raised.value)


def test_a_package_without_migrations_is_told():
    with pytest.raises(MigrationError, match="no migrations directory"):
        migrations_directory("json")
    with pytest.raises(MigrationError, match="no such service package"):
        migrations_directory("no_such_service")
