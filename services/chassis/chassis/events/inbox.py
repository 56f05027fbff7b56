"""The inbox: which events were handled already."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database, database_of
from chassis.events.cloudevent import CloudEvent
from chassis.events.tables import inbox

if TYPE_CHECKING:
    from chassis.runtime import Runtime

# Longer than a sender retries; a row costs about 200 bytes.
RETENTION = timedelta(days=30)
_PURGE_SECONDS = 3600.0
_PURGE_BATCH = 1000


async def receive(session: AsyncSession, event: CloudEvent, now: datetime) -> bool:
    """Note `event` in the transaction of `session`; False if it was handled before.

    While another transaction handles the same event, PostgreSQL waits here for its end (and
    SQLite at the start of the transaction): if that one commits, this answers False; if it rolls
    back, True.
    """
    row = {"source": event.source, "id": event.id, "type": event.type, "received_at": now}
    result = await session.execute(_insert(database_of(session).dialect), row)
    return result.first() is not None


@cache  # putting the statement together costs more than running it
def _insert(dialect: str) -> Any:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(inbox).on_conflict_do_nothing().returning(inbox.c.id)


async def purge_inbox(database: Database, before: datetime) -> int:
    """Delete rows received before `before`, in batches; return how many."""
    total = 0
    while True:
        async with database.session() as session:
            old = (
                select(inbox.c.source, inbox.c.id)
                .where(inbox.c.received_at < before)
                .limit(_PURGE_BATCH)
            )
            key = tuple_(inbox.c.source, inbox.c.id)
            deleted = len(
                (
                    await session.execute(delete(inbox).where(key.in_(old)).returning(inbox.c.id))
                ).all()
            )
        total += deleted
        if deleted < _PURGE_BATCH:
            return total


async def run_inbox_purge(runtime: Runtime) -> None:
    """Delete old rows each hour, until cancelled."""
    while True:
        await purge_inbox(runtime.database, runtime.clock.now() - RETENTION)
        await runtime.clock.sleep(_PURGE_SECONDS)
