"""Ends reservations that ran out: by a worker, and at once when somebody needs their units."""

from collections.abc import Collection
from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database, run_transaction
from chassis.runtime import Runtime
from inventory import reservations
from inventory.metrics import metrics_of
from inventory.settings import Settings


async def expire_due(
    database: Database, now: datetime, *, limit: int, item_ids: Collection[str] | None = None
) -> int:
    """Expire up to `limit` reservations, optionally only those that hold some of `item_ids`.

    Each is a transaction of its own, so that its items are locked in order.

    Returns:
        How many this call expired; others may have expired some at the same time.
    """
    async with database.reading() as session:
        found = await reservations.due(session, now, limit=limit, item_ids=item_ids)
    expired = 0
    for reservation_id in found:
        expired += await run_transaction(database, partial(_expire, reservation_id, now))
    return expired


async def _expire(reservation_id: str, now: datetime, session: AsyncSession) -> bool:
    return await reservations.expire(session, reservation_id, now)


async def expiry_worker(runtime: Runtime) -> None:
    """Expire what is due, for ever. Safe in every replica at once."""
    settings = runtime.settings
    assert isinstance(settings, Settings)
    counter = metrics_of(runtime).reservations.labels("expired")
    while True:
        expired = await expire_due(
            runtime.database, runtime.clock.now(), limit=settings.expiry_batch
        )
        counter.inc(expired)
        if expired < settings.expiry_batch:
            await runtime.clock.sleep(settings.expiry_poll_seconds)
