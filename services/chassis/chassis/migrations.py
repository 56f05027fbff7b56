"""Alembic migrations, run by a command, safe from many replicas at once.

`migrate` takes an advisory lock (PostgreSQL) or a lock on a file beside the database (SQLite),
so one process migrates and the others find nothing left to do. Each migration is one
transaction, on SQLite too: a migration that fails leaves the database at the one before it.

A service has its migrations in `<package>/migrations` (as in a wheel) or in `migrations` beside
the package. Its `env.py` is:

    from chassis.migrations import env_run
    from orders.models import Base
    env_run(Base.metadata)
"""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from alembic import command, context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from chassis.database import async_url, chassis_metadata
from chassis.events import tables as _event_tables
from chassis.idempotency_table import idempotency_keys
from chassis.settings import DatabaseSettings

T = TypeVar("T")

# Importing them puts them in `chassis_metadata`.
_CHASSIS_TABLES = (_event_tables.outbox, _event_tables.inbox, idempotency_keys)

_LOCK_WAIT_SECONDS = 300.0
_LOCK_POLL_SECONDS = 0.1
# Advisory locks belong to one database of the server, so one number does for all services.
_ADVISORY_KEY = int.from_bytes(b"slipway", "big")
_CONNECTION = "chassis.connection"
_METADATA = "chassis.metadata"
_IMMEDIATE = "chassis_immediate"

# Alembic keeps its context in a module global: one migration at a time per process.
_alembic_context = threading.Lock()


class MigrationError(Exception):
    """A migration could not run or failed. Its text is one line."""


@dataclass(frozen=True)
class MigrationStatus:
    """Where a database stands against the code: its revisions, the code's, and what differs."""

    current: tuple[str, ...]
    heads: tuple[str, ...]
    ahead: bool = False
    drift: tuple[str, ...] = ()

    @property
    def pending(self) -> bool:
        """Tell whether migrations are left to run.

        A database that is ahead, at a revision this code does not know, has none: in a rolling
        update it was migrated by newer code, and older code must still start on it.
        """
        return not self.ahead and set(self.current) != set(self.heads)


async def migrate(
    service: str, settings: DatabaseSettings, *, lock_wait_seconds: float = _LOCK_WAIT_SECONDS
) -> None:
    """Bring the database of `service` to the newest revision; nothing to do is success.

    Raises:
        MigrationError: if the lock, the database or a migration fails, in one line.
    """

    def run(connection: Connection, config: Config) -> None:
        with _lock(connection, lock_wait_seconds):
            found = _revisions(connection, config)
            connection.rollback()
            if found.ahead:
                raise MigrationError(
                    f"the database is at revision {', '.join(found.current)}, which this code "
                    "does not have; it is newer, or another service's"
                )
            if found.pending:
                connection.execution_options(**{_IMMEDIATE: True})
                command.upgrade(config, "heads")

    await anyio.to_thread.run_sync(_with_alembic, service, settings, run)


async def status(service: str, settings: DatabaseSettings) -> MigrationStatus:
    """Compare the database of `service` with its migrations and its models.

    Raises:
        MigrationError: if the database cannot be read, in one line.
    """

    def run(connection: Connection, config: Config) -> MigrationStatus:
        found = _revisions(connection, config)
        connection.rollback()
        if found.ahead or found.pending:
            return found
        # Running env.py without a revision to apply tells the models' metadata.
        command.current(config)
        return replace(found, drift=_drift(connection, config.attributes[_METADATA]))

    return await anyio.to_thread.run_sync(_with_alembic, service, settings, run)


async def needs_migration(service: str, settings: DatabaseSettings) -> bool:
    """Tell whether the database of `service` is behind its migrations.

    Only the revisions are compared: a starting process asks this every second.

    Raises:
        MigrationError: if the database cannot be read, in one line.
    """
    found = await anyio.to_thread.run_sync(_with_alembic, service, settings, _revisions)
    return found.pending


def _revisions(connection: Connection, config: Config) -> MigrationStatus:
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    return MigrationStatus(
        current=tuple(current),
        heads=tuple(script.get_heads()),
        ahead=not known.issuperset(current),
    )


def migrations_directory(service: str) -> Path:
    """Return the directory of the migrations of `service`.

    Raises:
        MigrationError: if the package or the directory is missing.
    """
    try:
        module = importlib.import_module(service)
    except ModuleNotFoundError as error:
        raise MigrationError(f"{service}: no such service package ({error})") from None
    if module.__file__ is None:
        raise MigrationError(f"{service}: not a package")
    package = Path(module.__file__).parent
    for candidate in (package / "migrations", package.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise MigrationError(f"{service}: no migrations directory with an env.py beside {package}")


def env_run(target_metadata: MetaData | Sequence[MetaData]) -> None:
    """Run the migrations of the current Alembic command; all that an `env.py` calls."""
    metadata = [target_metadata] if isinstance(target_metadata, MetaData) else [*target_metadata]
    config = context.config
    connection: Connection | None = config.attributes.get(_CONNECTION)
    config.attributes[_METADATA] = metadata
    if connection is None:
        raise MigrationError("migrations run by `python -m chassis migrate <service>`")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # Alembic assumes that SQLite cannot roll DDL back; with an explicit BEGIN it can.
        transactional_ddl=True,
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
        on_version_apply=_check_foreign_keys,
    )
    with context.begin_transaction():
        context.run_migrations()


def _with_alembic(
    service: str,
    settings: DatabaseSettings,
    run: Callable[[Connection, Config], T],
) -> T:
    """Call `run` with a connection and Alembic's configuration; any failure is one line."""
    # Alembic reads the path as a configparser value.
    location = str(migrations_directory(service)).replace("%", "%%")
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    engine = _engine(settings)
    try:
        with _alembic_context, engine.connect() as connection:
            config.attributes[_CONNECTION] = connection
            return run(connection, config)
    except MigrationError as error:
        raise MigrationError(f"{service}: {error}") from error
    except SQLAlchemyError as error:
        raise MigrationError(f"{service}: {_one_line(getattr(error, 'orig', error))}") from error
    except Exception as error:  # a migration is any code
        raise MigrationError(f"{service}: {type(error).__name__}: {_one_line(error)}") from error
    finally:
        engine.dispose()


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _engine(settings: DatabaseSettings) -> Engine:
    url = async_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"application_name": f"{settings.service_name}-migrate"},
    )


def _sqlite_engine(url: URL) -> Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": 30},
    )

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, _: object) -> None:
        dbapi_connection.isolation_level = None
        # Batch mode rebuilds tables; with enforcement on, dropping the old one would delete
        # what refers to it. The keys are checked at the end of each migration instead.
        dbapi_connection.execute("PRAGMA foreign_keys = OFF")
        dbapi_connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Who only looks does not wait for who writes.
        immediate = connection.get_execution_options().get(_IMMEDIATE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


@contextmanager
def _lock(connection: Connection, wait: float) -> Iterator[None]:
    """Keep other migrations of the same database out, in this process and in others."""
    deadline = time.monotonic() + wait
    if connection.dialect.name == "sqlite":
        path = f"{connection.engine.url.database}.migrate.lock"
        # The file stays: removing it would let two processes lock two files of one name.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _poll(lambda: _lock_file(descriptor), deadline)
            yield
        finally:
            os.close(descriptor)
        return
    query = text("SELECT pg_try_advisory_lock(:key)").bindparams(key=_ADVISORY_KEY)

    def try_lock() -> bool:
        taken = bool(connection.execute(query).scalar_one())
        connection.commit()
        return taken

    # Polled: a session blocked in pg_advisory_lock holds a snapshot, and a migration that runs
    # CREATE INDEX CONCURRENTLY would wait for that snapshot: a deadlock. The lock is the
    # session's; it ends when the connection is closed, however that happens.
    _poll(try_lock, deadline)
    yield


def _poll(try_lock: Callable[[], bool], deadline: float) -> None:
    while not try_lock():
        if time.monotonic() > deadline:
            raise MigrationError("another process is still migrating; try again later")
        time.sleep(_LOCK_POLL_SECONDS)


def _lock_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_foreign_keys(
    ctx: MigrationContext,
    step: MigrationInfo,  # noqa: ARG001  (Alembic passes all four by keyword)
    heads: Collection[Any],  # noqa: ARG001
    run_args: Mapping[str, Any],  # noqa: ARG001
) -> None:
    """Refuse a migration that leaves dangling keys behind; it is rolled back."""
    connection = ctx.connection
    if connection is None or connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise MigrationError(f"a row of {broken[0]} refers to a missing row of {broken[2]}")


def _drift(connection: Connection, metadata: list[MetaData]) -> tuple[str, ...]:
    own = {name for item in metadata for name in item.tables}

    def include(_: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        # Of the chassis' own tables a service has those its migrations created.
        chassis = kind == "table" and name in chassis_metadata.tables and name not in own
        return not (chassis and not reflected and compare_to is None)

    migration = MigrationContext.configure(
        connection,
        opts={"target_metadata": [*metadata, chassis_metadata], "include_object": include},
    )
    # Alembic takes a list too; its annotation does not say so.
    differences = compare_metadata(migration, [*metadata, chassis_metadata])  # type: ignore[arg-type]
    return tuple(_describe(difference) for difference in differences)


def _describe(difference: Any) -> str:
    if isinstance(difference, list):
        return "; ".join(_describe(item) for item in difference)
    kind, *rest = difference
    return f"{kind} {' '.join(_name(item) for item in rest if item is not None)}"


def _name(item: Any) -> str:
    name = str(getattr(item, "name", None) or item)
    table = getattr(getattr(item, "table", None), "name", None)
    return f"{table}.{name}" if table else name
