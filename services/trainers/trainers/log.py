"""The log of events: appended to by commands, in their transactions, and read by the projector."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from trainers.events import Event, decode, encode
from trainers.models import events, log_head


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event of the log. `revision` is that of the trainer after it."""

    position: int
    trainer_id: str
    revision: int
    type: str
    event: Event
    at: datetime
    trace: str | None


async def append(
    session: AsyncSession,
    trainer_id: str,
    revision: int,
    facts: Sequence[Event],
    now: datetime,
) -> int:
    """Append the events of one trainer; return the position of the last.

    `revision` is the trainer's before them. Call it at the end of a transaction: from here to the
    commit nobody else appends.
    """
    # Positions must become visible in their order, or the projector, which goes on behind the
    # last position that it saw, would pass over a lower one that is committed later. A sequence
    # gives numbers in order and lets transactions commit in any. This row is locked until the
    # commit, so whoever gets the next position begins after it is visible.
    moved = await session.execute(
        update(log_head)
        .values(position=log_head.c.position + len(facts))
        .returning(log_head.c.position)
    )
    last: int = moved.scalar_one()
    trace: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(trace)
    rows = []
    for number, fact in enumerate(facts, 1):
        kind, data = encode(fact)
        rows.append(
            {
                "position": last - len(facts) + number,
                "trainer_id": trainer_id,
                "revision": revision + number,
                "type": kind,
                "data": data,
                "at": now,
                "trace": trace.get("traceparent"),
            }
        )
    await session.execute(insert(events), rows)
    return last


async def position_of(session: AsyncSession, trainer_id: str, revision: int) -> int:
    """Return the position of the event that made this revision."""
    query = select(events.c.position).where(
        events.c.trainer_id == trainer_id, events.c.revision == revision
    )
    found: int = (await session.execute(query)).scalar_one()
    return found


async def after(session: AsyncSession, position: int, limit: int) -> list[Recorded]:
    """Return up to `limit` events behind a position, in their order.

    Raises:
        UnknownEventError: this code cannot read one of them.
    """
    query = select(events).where(events.c.position > position)
    rows = await session.execute(query.order_by(events.c.position).limit(limit))
    return [
        Recorded(
            position=row.position,
            trainer_id=row.trainer_id,
            revision=row.revision,
            type=row.type,
            event=decode(row.type, row.data),
            at=row.at,
            trace=row.trace,
        )
        for row in rows
    ]
