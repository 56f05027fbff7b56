"""Transactions: each session is one, committed at the end or rolled back on any error."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

import anyio
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from chassis.database.engine import build_engines
from chassis.database.errors import is_retryable
from chassis.database.pool import Checkouts
from chassis.database.signals import Announcements, Signal
from chassis.settings import DatabaseSettings

T = TypeVar("T")

_DATABASE = "chassis.database"
_AFTER_COMMIT = "chassis.after_commit"
_RETRY_BASE_SECONDS = 0.02
_RETRY_CAP_SECONDS = 0.5
_WAIT_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Database:
    """The engines of one database and the sessions on them.

    On SQLite a write session holds the only write connection of the process: open one at a time
    per task, keep it short, and call no peer inside it.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        registry: CollectorRegistry | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.settings = settings
        histogram = None
        if registry is not None:
            histogram = Histogram(
                "db_pool_wait_seconds",
                "Time to get a connection from the pool, the opening of a new one included",
                buckets=_WAIT_BUCKETS,
                registry=registry,
            )
            registry.register(_PoolCollector(self))
        self._checkouts = Checkouts(histogram)
        self.engine, self.read_engine = build_engines(settings, self._checkouts)
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if self.engine.dialect.name == "sqlite" else "postgresql"
        )
        if tracer_provider is not None:
            # Slow to import, and off by default.
            from chassis.database.instrument import instrument  # noqa: PLC0415

            for engine in self.engines():
                instrument(engine, tracer_provider)
        self._write = async_sessionmaker(self.engine, expire_on_commit=False)
        self._read = async_sessionmaker(self.read_engine, expire_on_commit=False)
        # What a commit of this process tells its own waiting tasks; others look by themselves.
        self.outbox_written = Signal()
        self.completions = Announcements()

    def engines(self) -> tuple[AsyncEngine, ...]:
        """Return the distinct engines."""
        if self.read_engine is self.engine:
            return (self.engine,)
        return (self.engine, self.read_engine)

    @asynccontextmanager
    async def session(self, *, serializable: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a write transaction: committed at the end, rolled back on any error.

        It begins at the first statement. On SQLite it takes the write lock there
        (`BEGIN IMMEDIATE`), so a later statement cannot fail for a lock.
        """
        async with self._write() as session:
            session.info[_DATABASE] = self
            if serializable and self.dialect == "postgresql":
                # By a statement: an engine's option is set by awaits that a cancellation can
                # hit while nobody owns the connection yet, and its place in the pool is lost.
                await session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
            yield session
            await session.commit()
        for callback in session.info.get(_AFTER_COMMIT, ()):
            callback()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction for reading. SQLite refuses writes in it; never commit one.

        What it reads is rolled back at the end, on PostgreSQL as well: a write is lost.
        """
        async with self._read() as session:
            session.info[_DATABASE] = self
            yield session

    async def close(self) -> None:
        """Close all pooled connections."""
        await self._checkouts.settle()
        for engine in self.engines():
            await engine.dispose()


def database_of(session: AsyncSession) -> Database:
    """Return the `Database` that opened `session`.

    Raises:
        RuntimeError: if it was not opened by one.
    """
    database: Database | None = session.info.get(_DATABASE)
    if database is None:
        raise RuntimeError("this session was not opened by chassis.database.Database")
    return database


def after_commit(session: AsyncSession, callback: Callable[[], None]) -> None:
    """Call `callback` once the transaction of `session` is committed; not if it is rolled back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


async def run_transaction(
    database: Database,
    function: Callable[[AsyncSession], Awaitable[T]],
    *,
    attempts: int = 3,
    serializable: bool = False,
) -> T:
    """Run `function` in a write transaction, again if the database asks for it.

    Serialization failures, deadlocks and a busy SQLite are tried `attempts` times in all, with
    short random pauses. `function` must have no effect outside the session.
    """
    for attempt in range(1, attempts + 1):
        try:
            async with database.session(serializable=serializable) as session:
                return await function(session)
        except Exception as error:
            if attempt == attempts or not is_retryable(error):
                raise
        pause = min(_RETRY_CAP_SECONDS, _RETRY_BASE_SECONDS * 2**attempt)
        await anyio.sleep(random.uniform(0, pause))  # noqa: S311  (jitter, no secret)
    raise ValueError("attempts must be at least 1")


class _PoolCollector(Collector):
    """Reads the pool at scrape time, so that requests pay nothing for the gauge."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family, limit = self._families()
        pools = [
            engine.pool for engine in self._database.engines() if isinstance(engine.pool, QueuePool)
        ]
        family.add_metric(["used"], sum(pool.checkedout() for pool in pools))
        family.add_metric(["idle"], sum(pool.checkedin() for pool in pools))
        limit.add_metric([], sum(pool.size() for pool in pools))
        yield family
        yield limit

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "db_pool_connections", "Connections of the database pool", labels=["state"]
            ),
            GaugeMetricFamily("db_pool_limit", "Connections that the database pool may open"),
        )
