"""The database: transactions, limits, metrics and spans, on SQLite and PostgreSQL."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone

import anyio
import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
from prometheus_client import CollectorRegistry
from sqlalchemy import ForeignKey, Integer, String, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis.database import (
    Database,
    UtcDateTime,
    after_commit,
    async_url,
    database_of,
    is_retryable,
    is_unavailable,
    run_transaction,
)
from chassis.settings import DatabaseSettings


class Base(DeclarativeBase):
    """The models of this module."""


class Row(Base):
    """A row with a unique text and a number to count in."""

    __tablename__ = "rows"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    text: Mapped[str | None] = mapped_column(String(50), unique=True)
    number: Mapped[int] = mapped_column(Integer, default=0)
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Child(Base):
    """A row that refers to another."""

    __tablename__ = "children"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    # Checked at the commit: the way to make a commit fail for real.
    row_id: Mapped[int] = mapped_column(
        ForeignKey("rows.id", deferrable=True, initially="DEFERRED")
    )


@pytest.fixture
async def open_database(make_settings, database_url):
    """A function that opens the database of the test, with other settings if wanted."""
    opened = []

    async def open_it(registry=None, tracer_provider=None, **settings):
        database = Database(
            make_settings(DatabaseSettings, database_url=database_url, **settings),
            registry,
            tracer_provider=tracer_provider,
        )
        opened.append(database)
        if len(opened) == 1:
            async with database.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
        return database

    yield open_it
    for database in opened:
        await database.close()


@pytest.fixture
async def database(open_database):
    return await open_database()


def outside(url, query):
    """Run a query on a connection that has nothing to do with the chassis."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(query).fetchall()
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///a/b.db", "sqlite+aiosqlite:///a/b.db"),
        ("sqlite+aiosqlite:////a.db", "sqlite+aiosqlite:////a.db"),
        (
            "postgresql://u:p@h:1/d?sslmode=require",
            "postgresql+psycopg://u:p@h:1/d?sslmode=require",
        ),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_urls_get_the_asynchronous_driver(given, used):
    assert async_url(given).render_as_string(hide_password=False) == used


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d"])
def test_urls_that_cannot_work_are_refused(url):
    """In memory, each connection would see a database of its own."""
    with pytest.raises(ValueError, match="use"):
        async_url(url)


async def test_sqlite_is_configured_to_lose_nothing(make_settings, tmp_path):
    """WAL, FULL sync, foreign keys, a busy timeout; and the directory is made."""
    path = tmp_path / "not" / "yet" / "there.db"
    database = Database(make_settings(DatabaseSettings, database_url=f"sqlite:///{path}"))
    try:
        async with database.session() as session:
            values = {
                name: await session.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert values == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 10_000,
        }
        async with database.reading() as session:
            assert await session.scalar(text("PRAGMA query_only")) == 1
    finally:
        await database.close()


async def test_a_session_commits_at_its_end_and_rolls_back_on_an_error(database, database_url):
    async with database.session() as session:
        session.add(Row(id=1))
    with pytest.raises(LookupError):  # noqa: PT012
        async with database.session() as session:
            session.add(Row(id=2))
            await session.flush()
            raise LookupError
    assert outside(database_url, "SELECT id FROM rows") == [(1,)]


async def test_reading_sessions_write_nothing(database, database_url):
    """SQLite refuses at once, so the first test finds a wrong dependency; nothing is kept."""
    with suppress(DBAPIError) if database.dialect == "postgresql" else pytest.raises(DBAPIError):
        async with database.reading() as session:
            await session.execute(insert(Row).values(id=1))
    assert outside(database_url, "SELECT id FROM rows") == []


async def test_reading_sees_one_moment(database):
    """SQLite: both reads of a transaction see the same state while another one commits."""
    if database.dialect == "postgresql":
        pytest.skip("READ COMMITTED: each statement of PostgreSQL sees its own moment")
    async with database.reading() as session:
        before = await session.scalar(select(func.count()).select_from(Row))
        async with database.session() as writer:
            writer.add(Row(id=1))
        assert await session.scalar(select(func.count()).select_from(Row)) == before


async def test_after_commit_runs_only_after_a_commit(database, database_url):
    """And when it runs, others can see the row."""
    seen = []
    async with database.session() as session:
        after_commit(session, lambda: seen.append(outside(database_url, "SELECT id FROM rows")))
        session.add(Row(id=1))
    with pytest.raises(LookupError):  # noqa: PT012
        async with database.session() as session:
            after_commit(session, lambda: seen.append("rolled back"))
            raise LookupError
    assert seen == [[(1,)]]


async def test_a_session_knows_its_database(database):
    async with database.reading() as session:
        assert database_of(session) is database


async def test_times_are_stored_in_utc(database):
    """A time of another zone comes back as the same moment, aware, in UTC; naive is refused."""
    local = datetime(2026, 3, 29, 1, 30, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    async with database.session() as session:
        session.add_all([Row(id=1, at=local), Row(id=2, at=local + timedelta(microseconds=1))])
    async with database.reading() as session:
        stored = (await session.scalars(select(Row.at).order_by(Row.at))).all()
        assert stored == [local, local + timedelta(microseconds=1)]
        assert all(each.tzinfo is UTC for each in stored)
        assert await session.scalar(select(Row.id).where(Row.at > local)) == 2
    with pytest.raises(StatementError, match="naive"):
        async with database.session() as session:
            session.add(Row(id=3, at=local.replace(tzinfo=None)))


async def test_fifty_writers_of_one_process_all_succeed(database):
    """Each reads and writes back: none is lost, none fails for a lock."""
    async with database.session() as session:
        session.add(Row(id=1))

    async def add_one():
        async with database.session() as session:
            row = await session.get_one(Row, 1, with_for_update=True)
            row.number += 1

    await asyncio.gather(*(add_one() for _ in range(50)))
    async with database.reading() as session:
        assert await session.scalar(select(Row.number)) == 50


async def test_cancelled_work_leaves_the_pools_usable(open_database):
    """Cancelled at any moment, once or again and again, work ends and gives its connection back."""
    registry = CollectorRegistry()
    database = await open_database(registry, database_pool_size=4)
    async with database.session() as session:
        session.add(Row(id=1))

    async def work():
        while True:
            async with database.reading() as session:
                await session.execute(select(Row))
            async with database.session() as session:
                await session.execute(update(Row).values(number=Row.number + 1))

    async def bounded(seconds):
        with anyio.move_on_after(seconds):  # cancels at every await
            await work()

    rng = random.Random(7)
    for round_ in range(60):
        tasks = [asyncio.create_task(work()) for _ in range(3)]
        tasks.append(asyncio.create_task(bounded(rng.uniform(0, 0.02))))
        await asyncio.sleep(rng.uniform(0, 0.02))
        for _ in range(1 + round_ % 3):
            for task in tasks[:3]:
                task.cancel()
            await asyncio.sleep(0)
        _, pending = await asyncio.wait(tasks, timeout=20)
        assert not pending
        assert all(task.cancelled() for task in tasks[:3])
        assert tasks[3].exception() is None
    await until_unused(registry)
    async with database.session() as session:
        await session.execute(update(Row).values(number=0))


async def until_unused(registry):
    """A connection of a cancelled task may come back a moment after the task has ended."""
    async with asyncio.timeout(60):
        while registry.get_sample_value("db_pool_connections", {"state": "used"}):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_exhausted_pool_is_unavailable(open_database):
    """Who waits longer than the setting gets an error that becomes 503."""
    database = await open_database(database_pool_size=1, database_pool_timeout_seconds=0.1)
    async with database.session() as session:
        session.add(Row(id=1))
        await session.flush()
        with pytest.raises(PoolTimeoutError) as raised:
            async with database.session() as other:
                await other.execute(select(Row))
    assert is_unavailable(raised.value)


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


@pytest.mark.parametrize("mode", ["session", "reading"])
async def test_a_statement_that_runs_too_long_is_ended(open_database, mode):
    """The connection is usable afterwards, and the next statement has its full time again."""
    await open_database()  # The tables are made in their own time.
    # Long enough for the honest statements, on a busy machine too.
    database = await open_database(statement_timeout_seconds=2)
    for _ in range(2):
        with pytest.raises(DBAPIError) as raised:
            async with getattr(database, mode)() as session:
                await session.execute(text(ENDLESS[database.dialect]))
        assert is_unavailable(raised.value)
        assert not is_retryable(raised.value)
    async with getattr(database, mode)() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(("statement", "idle"), [(2, "10s"), (10, "10s"), (45, "45s")])
async def test_postgresql_is_told_how_long_to_wait(open_database, database_url, statement, idle):
    """For a statement, and for a client: as long as a statement, and never under 10 s."""
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite knows no clients that outlive their process")
    database = await open_database(statement_timeout_seconds=statement)
    async with database.reading() as session:
        assert await session.scalar(text("SHOW statement_timeout")) == f"{statement}s"
        assert await session.scalar(text("SHOW idle_in_transaction_session_timeout")) == idle


async def test_a_transaction_whose_client_is_gone_keeps_no_lock(database):
    """The next one waits no longer than that; whoever comes back is told of an outage."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite knows no clients that outlive their process")
    async with database.session() as session:
        session.add(Row(id=1))
    with pytest.raises(DBAPIError) as raised:  # noqa: PT012
        async with database.session() as gone:
            await gone.execute(update(Row).values(number=1))
            await gone.execute(text("SET LOCAL idle_in_transaction_session_timeout = '200ms'"))
            async with database.session() as session:
                await session.execute(update(Row).values(number=2))
            await gone.execute(update(Row).values(number=3))
    assert is_unavailable(raised.value)
    async with database.reading() as session:
        assert await session.scalar(select(Row.number)) == 2


async def test_a_fault_of_the_statement_is_no_outage(database):
    """SQLite calls a missing table an operational error too; it must stay a 500."""
    for statement in ("SELECT * FROM absent", "SELEC"):
        with pytest.raises(DBAPIError) as raised:
            async with database.reading() as session:
                await session.execute(text(statement))
        assert not is_unavailable(raised.value)


async def test_run_transaction_repeats_a_serialization_failure(database):
    """Two transactions read, then both write: PostgreSQL fails one, and it is done again."""
    async with database.session() as session:
        session.add_all([Row(id=1), Row(id=2)])
    barrier = asyncio.Barrier(2)
    runs = []

    async def copy(source, target):
        async def work(session):
            runs.append(source)
            number = await session.scalar(select(Row.number).where(Row.id == source))
            if len(runs) <= 2 and database.dialect == "postgresql":
                async with asyncio.timeout(60):
                    await barrier.wait()
            await session.execute(update(Row).where(Row.id == target).values(number=number + 1))

        await run_transaction(database, work, serializable=True)

    await asyncio.gather(copy(1, 2), copy(2, 1))
    async with database.reading() as session:
        numbers = (await session.scalars(select(Row.number))).all()
    assert sorted(numbers) == [1, 2]  # as one after the other; side by side it would be [1, 1]
    assert len(runs) == (3 if database.dialect == "postgresql" else 2)


async def test_run_transaction_repeats_a_deadlock(database):
    """Two transactions lock two rows in opposite order."""
    if database.dialect == "sqlite":
        pytest.skip("writers of SQLite come one after the other")
    async with database.session() as session:
        session.add_all([Row(id=1), Row(id=2)])
    barrier = asyncio.Barrier(2)
    runs = []

    async def both(first, second):
        async def work(session):
            runs.append(first)
            await session.execute(update(Row).where(Row.id == first).values(number=Row.number + 1))
            if len(runs) <= 2:
                async with asyncio.timeout(60):
                    await barrier.wait()
            await session.execute(update(Row).where(Row.id == second).values(number=Row.number + 1))

        await run_transaction(database, work)

    await asyncio.gather(both(1, 2), both(2, 1))
    assert len(runs) == 3
    async with database.reading() as session:
        assert (await session.scalars(select(Row.number))).all() == [2, 2]


async def test_run_transaction_gives_up_after_its_attempts(open_database, database_url):
    """Another process holds SQLite's write lock all the time."""
    if database_url.startswith("postgresql"):
        pytest.skip("SQLite's lock")
    await open_database()  # The tables are made in their own time.
    database = await open_database(statement_timeout_seconds=0.05)
    runs = []

    async def work(session):
        runs.append(1)
        await session.execute(insert(Row).values(id=1))

    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DBAPIError) as raised:
            await run_transaction(database, work, attempts=3)
        assert is_retryable(raised.value)
        assert is_unavailable(raised.value)
        other.execute("ROLLBACK")
    assert len(runs) == 3
    await run_transaction(database, work)


async def test_run_transaction_does_not_repeat_other_errors(database):
    runs = []

    async def work(session):
        runs.append(1)
        await session.execute(insert(Row), [{"id": 1}, {"id": 1}])

    with pytest.raises(IntegrityError):
        await run_transaction(database, work)
    assert len(runs) == 1


async def test_pool_metrics(open_database):
    """Connections by state, and how long they were waited for."""
    registry = CollectorRegistry()
    database = await open_database(registry)

    def connections(state):
        return registry.get_sample_value("db_pool_connections", {"state": state})

    async with database.session() as session:
        await session.execute(select(Row))
        assert connections("used") == 1
    assert connections("used") == 0
    assert connections("idle") == 1
    assert registry.get_sample_value("db_pool_limit") >= database.settings.database_pool_size
    assert registry.get_sample_value("db_pool_wait_seconds_count") >= 2


async def test_spans_have_the_statement_and_no_values(open_database):
    """Neither parameters nor the server's message, which quotes them, get into a trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    database = await open_database(tracer_provider=provider)
    exporter.clear()
    with provider.get_tracer("test").start_as_current_span("request"):
        async with database.session() as session:
            await session.execute(insert(Row).values(id=1, text="a-secret-value"))
        with pytest.raises(IntegrityError):
            async with database.session() as session:
                await session.execute(insert(Row).values(id=2, text="a-secret-value"))
    spans = [span for span in exporter.get_finished_spans() if "INSERT" in span.name]
    assert len(spans) == 2
    assert all("INSERT INTO rows" in str(span.attributes) for span in spans)
    assert not spans[1].status.is_ok
    assert spans[1].attributes["error.type"] in {"23505", "IntegrityError"}
    for span in exporter.get_finished_spans():
        assert "a-secret-value" not in span.to_json()
    provider.shutdown()


async def test_what_no_request_asked_for_begins_no_trace(open_database):
    """A loop that polls, and a request that is not recorded, make no span of a statement."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    database = await open_database(tracer_provider=provider)
    exporter.clear()
    async with database.session() as session:
        await session.execute(select(Row))
    not_recorded = NonRecordingSpan(SpanContext(1, 1, is_remote=True))
    with use_span(not_recorded):
        async with database.session() as session:
            await session.execute(select(Row))
    assert exporter.get_finished_spans() == ()
    provider.shutdown()


CRASH = """
import asyncio, os, sys
from chassis.database import Database
from chassis.settings import DatabaseSettings
from sqlalchemy import text

async def main():
    database = Database(DatabaseSettings(database_url=sys.argv[1]))
    for number in range(100, 100000):
        async with database.session() as session:
            await session.execute(text(f"INSERT INTO rows (id, number) VALUES ({number}, 0)"))
        os.write(1, f"{number}\\n".encode())

asyncio.run(main())
"""


async def test_what_was_committed_survives_kill_9(database, database_url):
    """Each number that the process printed after its commit is there after the kill."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASH, database_url, stdout=subprocess.PIPE, env={**os.environ}
    )
    lines = [await process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    lines += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    told = {int(line) for line in lines if line.endswith(b"\n")}
    found = {row[0] for row in outside(database_url, "SELECT id FROM rows")}
    assert len(told) >= 20
    assert told <= found
    assert len(found - told) <= 1  # committed, but killed before it could say so
    async with database.session() as session:
        session.add(Row(id=1))
