"""A few trainers, for a first look at a running system. They come in by commands, as all do."""

from datetime import datetime, time

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import Clock, SystemClock
from trainers import staff
from trainers.commands import AssignSpecialities, RegisterTrainer, SetAvailability
from trainers.models import trainers
from trainers.slots import Day, Slot, Week

_WEEKDAYS = (Day.MONDAY, Day.TUESDAY, Day.WEDNESDAY, Day.THURSDAY, Day.FRIDAY)


def examples() -> dict[str, tuple[str, tuple[str, ...], Week]]:
    """Return what each trainer is known for, by name."""
    return {
        "Ada Park": (
            "Twelve years of strength training, for beginners too.",
            ("mobility", "strength"),
            _week("Europe/Berlin", (Day.MONDAY, Day.WEDNESDAY), (9, 10, 17)),
        ),
        "Bruno Costa": (
            "Ran Lisbon in 2:41 and knows how to begin with five kilometres.",
            ("endurance", "running"),
            _week("Europe/Lisbon", _WEEKDAYS, (7, 18)),
        ),
        "Chidi Obi": (
            "Swims in open water, teaches in the pool.",
            ("endurance", "swimming"),
            _week("Africa/Lagos", (Day.SATURDAY, Day.SUNDAY), (8, 9, 10, 11)),
        ),
    }


async def seed(session: AsyncSession, now: datetime) -> int:
    """Add every example trainer whose name is not there; return how many were added."""
    del now  # handlers ask their clock
    clock: Clock = SystemClock()
    known = set(await session.scalars(select(trainers.c.name)))
    added = 0
    for name, (bio, specialities, week) in examples().items():
        if name in known:
            continue
        done = await staff.Register(clock).handle(session, RegisterTrainer(name, bio))
        await staff.Assign(clock).handle(session, AssignSpecialities(done.trainer_id, specialities))
        await staff.Schedule(clock).handle(session, SetAvailability(done.trainer_id, week))
        added += 1
    return added


def _week(time_zone: str, days: tuple[Day, ...], hours: tuple[int, ...]) -> Week:
    slots = [Slot(day, time(hour), time(hour + 1)) for day in days for hour in hours]
    return Week(time_zone, tuple(slots))
