"""Empties the bin: a task that has been there for long is deleted for good."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import run_transaction
from chassis.runtime import Runtime
from tasks import store
from tasks.metrics import metrics_of
from tasks.settings import Settings

_PURGE_SECONDS = 600.0
_PURGE_BATCH = 500


async def bin_worker(runtime: Runtime) -> None:
    """Empty the bin every ten minutes, for ever. Safe in every replica at once."""
    settings = runtime.settings
    assert isinstance(settings, Settings)
    while True:
        await empty(runtime, settings)
        await runtime.clock.sleep(_PURGE_SECONDS)


async def empty(runtime: Runtime, settings: Settings, *, batch: int = _PURGE_BATCH) -> int:
    """Delete what has been in the bin for `bin_days`, in batches; return how many tasks."""
    before = runtime.clock.now() - timedelta(days=settings.bin_days)

    async def purge(session: AsyncSession) -> int:
        purged = await store.purge(session, before, batch)
        metrics_of(runtime).count(session, "purged", purged)
        return purged

    total = 0
    while True:
        purged = await run_transaction(runtime.database, purge)
        total += purged
        if purged < batch:
            return total
