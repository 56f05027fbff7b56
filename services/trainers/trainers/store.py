"""The write model in the caller's transaction: a trainer is locked, changed and recorded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.etags import strong_match
from trainers import log
from trainers.commands import Changed
from trainers.events import Event
from trainers.models import trainers
from trainers.refusals import Conflict, NotFound, Stale
from trainers.slots import Week

WEEK: TypeAdapter[Week] = TypeAdapter(Week)

ACTIVE = "active"
RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Trainer:
    """What commands know of a trainer."""

    id: str
    revision: int
    status: str
    name: str
    bio: str
    specialities: tuple[str, ...]
    week: Week | None


async def add(session: AsyncSession, trainer: Trainer, fact: Event, now: datetime) -> Changed:
    """Add a new trainer, at revision 1, with the event that says so."""
    values = asdict(trainer) | {
        "specialities": list(trainer.specialities),
        "week": None,
        "revision": 1,
    }
    await session.execute(insert(trainers).values(values))
    version = await log.append(session, trainer.id, 0, [fact], now)
    return Changed(trainer.id, 1, version)


async def lock(session: AsyncSession, trainer_id: str, if_match: str | None) -> Trainer:
    """Return a trainer whom nobody else changes until the end of this transaction.

    Raises:
        NotFound: there is none.
        Stale: the precondition does not name the revision.
    """
    query = select(trainers).where(trainers.c.id == trainer_id).with_for_update()
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"There is no trainer {trainer_id}.")
    if if_match is not None and not strong_match(if_match, row.revision):
        raise Stale(row.revision)
    return Trainer(
        id=row.id,
        revision=row.revision,
        status=row.status,
        name=row.name,
        bio=row.bio,
        specialities=tuple(row.specialities),
        week=None if row.week is None else WEEK.validate_python(row.week),
    )


async def lock_active(session: AsyncSession, trainer_id: str, if_match: str | None) -> Trainer:
    """Return a trainer who works, locked.

    Raises:
        NotFound: there is none.
        Stale: the precondition does not name the revision.
        Conflict: the trainer retired.
    """
    trainer = await lock(session, trainer_id, if_match)
    if trainer.status != ACTIVE:
        raise Conflict(
            "trainer-retired", "The trainer is retired", "A retired trainer is not changed."
        )
    return trainer


async def record(
    session: AsyncSession,
    trainer: Trainer,
    facts: Sequence[Event],
    now: datetime,
    **changes: Any,
) -> Changed:
    """Write the changes of a locked trainer and append the events of them."""
    revision = trainer.revision + len(facts)
    await session.execute(
        update(trainers).where(trainers.c.id == trainer.id).values(revision=revision, **changes)
    )
    version = await log.append(session, trainer.id, trainer.revision, facts, now)
    return Changed(trainer.id, revision, version)


async def unchanged(session: AsyncSession, trainer: Trainer) -> Changed:
    """Say that there was nothing to do."""
    version = await log.position_of(session, trainer.id, trainer.revision)
    return Changed(trainer.id, trainer.revision, version, changed=False)
