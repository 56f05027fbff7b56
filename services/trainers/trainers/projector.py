"""The projector: brings new events into the read model, in every process of the read side.

One works, the others stand by: a batch holds the lock of the projection's row, and whoever finds
it locked passes. The position moves in the transaction that changes the read model, so each event
counts once, wherever a process dies.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Signal, database_of, is_unavailable, run_transaction
from chassis.runtime import Runtime
from trainers import log, progress, projection
from trainers.metrics import ProjectionMetrics
from trainers.models import projections
from trainers.progress import PROJECTION, Progress
from trainers.settings import Settings

# While a caller waits for a version that another process is just projecting.
_HASTE_SECONDS = 0.02

_OURS = projections.c.name == PROJECTION


class Projector:
    """The projector of one process."""

    def __init__(self, runtime: Runtime, settings: Settings, metrics: ProjectionMetrics) -> None:
        self._runtime = runtime
        self._settings = settings
        self._metrics = metrics
        self._wake = Signal()
        self._moved = anyio.Event()
        self._waiting = 0
        self._position = 0
        self._limit = settings.projector_batch

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                moved = await self.step()
            except Exception as error:
                if is_unavailable(error):
                    raise
                # Not left to the supervisor, which would call the process unready: every replica
                # meets the same event, and an old answer is better than none.
                self._runtime.log.exception("projection.failed", position=self._position)
                self._metrics.failures.inc()
                # One by one up to the event itself, so that all before it are shown.
                self._limit = 1
                await self._runtime.clock.sleep(self._settings.projector_retry_seconds)
                continue
            if not moved:
                pause = _HASTE_SECONDS if self._waiting else self._settings.projector_poll_seconds
                await self._wake.wait(pause)

    async def step(self) -> int:
        """Look where log and read model stand, and project one batch; how many events it had."""
        async with self._runtime.database.reading() as session:
            found = await progress.read(session)
        self._tell(found)
        if not found.events:
            return 0
        moved = await run_transaction(self._runtime.database, self._batch)
        self._metrics.projected.inc(moved)
        self._limit = min(2 * self._limit, self._settings.projector_batch)
        return moved

    async def wait_for(self, version: int, seconds: float) -> bool:
        """Wait until the read model has `version`, at most `seconds`; tell whether it has."""
        self._waiting += 1
        try:
            with anyio.move_on_after(seconds):
                while self._position < version:
                    moved = self._moved
                    self._wake.set()
                    await moved.wait()
        finally:
            self._waiting -= 1
        return self._position >= version

    def _tell(self, found: Progress) -> None:
        self._metrics.lag_events.set(found.events)
        self._metrics.lag_seconds.set(found.seconds(self._runtime.clock.now()))
        if found.position != self._position:
            self._position = found.position
            self._moved.set()
            self._moved = anyio.Event()

    async def _batch(self, session: AsyncSession) -> int:
        locked = select(projections.c.position).where(_OURS).with_for_update(skip_locked=True)
        position: int | None = await session.scalar(locked)
        if position is None:
            return 0  # another process is at it
        batch = await log.after(session, position, self._limit)
        for recorded in batch:
            with self._span(recorded):
                await projection.apply(session, recorded)
        if batch:
            await move(session, batch[-1].position)
        return len(batch)

    @contextmanager
    def _span(self, recorded: log.Recorded) -> Iterator[None]:
        """Go on with the trace of the command that the event came from."""
        carrier = {"traceparent": recorded.trace} if recorded.trace else {}
        token = otel_context.attach(TraceContextTextMapPropagator().extract(carrier))
        provider = self._runtime.tracer_provider or trace.NoOpTracerProvider()
        tracer = trace.get_tracer("trainers.projector", tracer_provider=provider)
        try:
            if recorded.trace:
                with tracer.start_as_current_span(f"project {recorded.type}"):
                    yield
            else:
                yield
        finally:
            otel_context.detach(token)


async def move(session: AsyncSession, position: int) -> None:
    """Note how far the read model is, in the transaction that brought it there."""
    await session.execute(update(projections).where(_OURS).values(position=position))


async def rebuild(session: AsyncSession, batch: int) -> int:
    """Make the read model anew from all events, in the transaction of `session`; their number.

    Queries see the old one until the commit. On PostgreSQL commands go on too; on SQLite, which
    has one writer, they wait. The projectors stand by: this holds their row.
    """
    if database_of(session).dialect == "postgresql":
        # A statement that empties a large table may take its time.
        await session.execute(text("SET LOCAL statement_timeout = 0"))
    await session.execute(select(projections.c.position).where(_OURS).with_for_update())
    await projection.clear(session)
    position = count = 0
    while found := await log.after(session, position, batch):
        for recorded in found:
            await projection.apply(session, recorded)
        position, count = found[-1].position, count + len(found)
    await move(session, position)
    return count
