"""Engines: what the URL means, and how each database is told to be safe and bounded.

SQLite has one engine for writing, with one connection, and one for reading. SQLite allows a
single writer anyway; a pool of one makes writers of a process wait in order, off the database,
instead of polling for its lock. Other processes are waited for by `busy_timeout`.
"""

from __future__ import annotations

import math
import sqlite3
import time
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from chassis.database import driver
from chassis.database.pool import Checkouts
from chassis.settings import DatabaseSettings

# Virtual-machine instructions of SQLite between two looks at the clock; about a millisecond.
_PROGRESS_STEPS = 20_000
_WAL_POLL_SECONDS = 0.01
# How long a transaction may wait for its client, at least: a busy machine stalls for seconds.
_MIN_IDLE_MILLISECONDS = 10_000


def async_url(url: str) -> URL:
    """Return `url` with the asynchronous driver: `sqlite+aiosqlite` or `postgresql+psycopg`.

    Raises:
        ValueError: for another database, or for SQLite without a file.
    """
    parsed = make_url(url)
    backend = parsed.drivername.partition("+")[0]
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or "mode" in parsed.query:
            raise ValueError("SQLite needs a file; use sqlite:///path")
        return parsed.set(drivername="sqlite+aiosqlite")
    raise ValueError(f"{backend} is not supported; use postgresql:// or sqlite:///")


def build_engines(
    settings: DatabaseSettings, checkouts: Checkouts
) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engines for writing and for reading; on PostgreSQL they are one."""
    url = async_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        return (
            _sqlite_engine(url, settings, checkouts, writing=True),
            _sqlite_engine(url, settings, checkouts, writing=False),
        )
    engine = _postgresql_engine(url, settings, checkouts)
    return engine, engine


def _postgresql_engine(url: URL, settings: DatabaseSettings, checkouts: Checkouts) -> AsyncEngine:
    statement = _milliseconds(settings.statement_timeout_seconds)
    # A process that is frozen, or whose node is gone without a word, keeps its locks until TCP
    # gives up: two hours by default. Nothing here waits for others inside a transaction.
    idle = max(statement, _MIN_IDLE_MILLISECONDS)
    # Options of the connection, not SET: they cost no round trip and survive a rollback.
    # synchronous_commit: an answered request survives a crash whatever the server's default is.
    # tcp_keepalives: a connection whose node is gone gives up its place within two minutes.
    options = (
        f"-c statement_timeout={statement} -c idle_in_transaction_session_timeout={idle}"
        " -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
        " -c timezone=UTC -c synchronous_commit=on"
    )
    given = url.query.get("options", ())
    extra = [given] if isinstance(given, str) else list(given)
    connect_args: dict[str, Any] = {
        "options": " ".join([options, *extra]),
        "application_name": url.query.get("application_name", settings.service_name),
        # libpq reads whole seconds and takes 1 for 2.
        "connect_timeout": max(2, math.ceil(settings.database_pool_timeout_seconds)),
    }
    return create_async_engine(
        url.difference_update_query(["options", "application_name"]),
        poolclass=checkouts.pool_class(),
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout_seconds,
        # A connection that died while idle (restart, failover) is replaced before it is used.
        pool_pre_ping=True,
        connect_args=connect_args,
        # No service stores hstore; the first connection need not look for the type.
        use_native_hstore=False,
        hide_parameters=True,
    )


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _sqlite_engine(
    url: URL, settings: DatabaseSettings, checkouts: Checkouts, *, writing: bool
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=checkouts.pool_class(),
        pool_size=1 if writing else settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout_seconds,
        connect_args={
            "timeout": settings.statement_timeout_seconds,
            "async_creator_fn": driver.connect,
        },
        hide_parameters=True,
    )
    _configure_sqlite(engine, settings.statement_timeout_seconds, writing=writing)
    return engine


class _StatementDeadline:
    """Ends a statement of SQLite that runs too long; SQLite has no statement timeout itself.

    The time spent waiting for another process's lock does not count; `busy_timeout` bounds it.
    """

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = math.inf

    def __call__(self) -> bool:
        return time.monotonic() > self.at


def _enter_wal(cursor: Any, timeout: float) -> None:
    """Put the file in WAL mode; it stays so, and later connections only look.

    While another connection changes the mode SQLite answers "locked" at once, whatever the busy
    timeout.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            await_only(anyio.sleep(_WAL_POLL_SECONDS))
        else:
            return


def _configure_sqlite(engine: AsyncEngine, timeout: float, *, writing: bool) -> None:
    pragmas = [
        f"PRAGMA busy_timeout = {_milliseconds(timeout)}",
        "PRAGMA foreign_keys = ON",
    ]
    if writing:
        # FULL syncs the log at each commit: an answered request survives a loss of power.
        pragmas.append("PRAGMA synchronous = FULL")
    else:
        pragmas.append("PRAGMA query_only = ON")
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        driver = dbapi_connection.driver_connection
        try:
            # The driver must not begin transactions by itself; `begin` below does.
            dbapi_connection.isolation_level = None
            cursor = dbapi_connection.cursor()
            _enter_wal(cursor, timeout)
            for pragma in pragmas:
                cursor.execute(pragma)
            cursor.close()
            deadline = _StatementDeadline()
            record.info["deadline"] = deadline
            await_only(driver.set_progress_handler(deadline, _PROGRESS_STEPS))
        except BaseException:
            # The pool forgets a connection that is cancelled here, and its thread would live on.
            driver.stop()
            raise

    @event.listens_for(engine.sync_engine, "reset")
    def reset(dbapi_connection: Any, *_: Any) -> None:
        # A COMMIT that SQLite refuses (a deferred key) leaves the transaction open.
        if dbapi_connection.driver_connection.in_transaction:
            dbapi_connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    _limit_statements(engine, timeout)


def _limit_statements(engine: AsyncEngine, timeout: float) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def arm(connection: Connection, *_: Any) -> None:
        connection.info["deadline"].at = time.monotonic() + timeout

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def disarm(connection: Connection, *_: Any) -> None:
        connection.info["deadline"].at = math.inf

    @event.listens_for(engine.sync_engine, "rollback")
    def disarm_failed(connection: Connection) -> None:
        # A cancelled statement took its connection with it; there is nothing left to disarm, and
        # an error here would hide the cancellation.
        if not connection.invalidated:
            connection.info["deadline"].at = math.inf
