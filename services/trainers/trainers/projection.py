"""How each event changes the read model. The only place that writes it.

The projector and the rebuild both come through `apply`, with every event once and in order.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from trainers.events import (
    AvailabilitySet,
    ProfileChanged,
    SessionBooked,
    SessionCancelled,
    SessionRated,
    SpecialitiesAssigned,
    TrainerRegistered,
    TrainerRetired,
)
from trainers.log import Recorded
from trainers.models import READ_MODEL, calendar, profiles, teaches, works
from trainers.store import ACTIVE, RETIRED, WEEK

Step = Callable[[AsyncSession, Recorded, Any], Awaitable[None]]

_REVISE = update(profiles).where(profiles.c.trainer_id == bindparam("wanted"))


async def apply(session: AsyncSession, recorded: Recorded) -> None:
    """Change the read model by one event, in the caller's transaction."""
    step = _STEPS[type(recorded.event)]
    await step(session, recorded, recorded.event)
    await _profile(session, recorded, revision=recorded.revision)


async def clear(session: AsyncSession) -> None:
    """Empty the read model."""
    for table in READ_MODEL:
        await session.execute(delete(table))


async def _profile(session: AsyncSession, recorded: Recorded, **changes: Any) -> None:
    await session.execute(_REVISE, {"wanted": recorded.trainer_id, **changes})


async def _registered(session: AsyncSession, recorded: Recorded, fact: TrainerRegistered) -> None:
    await session.execute(
        insert(profiles).values(
            trainer_id=recorded.trainer_id,
            revision=recorded.revision,
            status=ACTIVE,
            name=fact.name,
            bio=fact.bio,
            specialities=[],
            week=None,
            ratings=0,
            stars=0,
            rating=0,
            registered_at=recorded.at,
        )
    )


async def _presented(session: AsyncSession, recorded: Recorded, fact: ProfileChanged) -> None:
    await _profile(session, recorded, name=fact.name, bio=fact.bio)


async def _assigned(session: AsyncSession, recorded: Recorded, fact: SpecialitiesAssigned) -> None:
    await _profile(session, recorded, specialities=list(fact.specialities))
    await _list(session, teaches, "speciality", recorded.trainer_id, fact.specialities)


async def _available(session: AsyncSession, recorded: Recorded, fact: AvailabilitySet) -> None:
    await _profile(session, recorded, week=WEEK.dump_python(fact.week, mode="json"))
    days = {slot.day.value for slot in fact.week.slots}
    await _list(session, works, "day", recorded.trainer_id, tuple(sorted(days)))


async def _booked(session: AsyncSession, recorded: Recorded, fact: SessionBooked) -> None:
    await session.execute(
        insert(calendar).values(
            session_id=fact.session_id,
            trainer_id=recorded.trainer_id,
            member=fact.member,
            starts_at=fact.starts_at,
            ends_at=fact.ends_at,
            status="booked",
        )
    )


async def _cancelled(session: AsyncSession, _: Recorded, fact: SessionCancelled) -> None:
    await session.execute(
        update(calendar).where(calendar.c.session_id == fact.session_id).values(status="cancelled")
    )


async def _rated(session: AsyncSession, recorded: Recorded, fact: SessionRated) -> None:
    this = calendar.c.session_id == fact.session_id
    before: int | None = await session.scalar(select(calendar.c.stars).where(this))
    await session.execute(update(calendar).where(this).values(stars=fact.stars))
    query = select(profiles.c.ratings, profiles.c.stars).where(
        profiles.c.trainer_id == recorded.trainer_id
    )
    known = (await session.execute(query)).one()
    ratings = known.ratings + (before is None)
    stars = known.stars + fact.stars - (before or 0)
    # Rounded half up, in integers: the same on every database.
    rating = (200 * stars + ratings) // (2 * ratings)
    await _profile(session, recorded, ratings=ratings, stars=stars, rating=rating)


async def _retired(session: AsyncSession, recorded: Recorded, _: TrainerRetired) -> None:
    await _profile(session, recorded, status=RETIRED)


async def _list(
    session: AsyncSession, table: Table, column: str, trainer_id: str, values: tuple[str, ...]
) -> None:
    """Replace what a trainer is found by."""
    await session.execute(delete(table).where(table.c.trainer_id == trainer_id))
    if values:
        rows = [{column: value, "trainer_id": trainer_id} for value in values]
        await session.execute(insert(table), rows)


def _steps() -> dict[type[Any], Step]:
    steps: dict[type[Any], Any] = {
        TrainerRegistered: _registered,
        ProfileChanged: _presented,
        SpecialitiesAssigned: _assigned,
        AvailabilitySet: _available,
        SessionBooked: _booked,
        SessionCancelled: _cancelled,
        SessionRated: _rated,
        TrainerRetired: _retired,
    }
    return cast("dict[type[Any], Step]", steps)


_STEPS = _steps()
