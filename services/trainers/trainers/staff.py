"""Handlers of the commands that staff gives: who the trainers are and when they work."""

from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import Clock
from chassis.ids import new_id
from trainers import store
from trainers.commands import (
    AssignSpecialities,
    Changed,
    ChangeProfile,
    RegisterTrainer,
    RetireTrainer,
    SetAvailability,
)
from trainers.events import (
    AvailabilitySet,
    CancelReason,
    Event,
    ProfileChanged,
    SessionCancelled,
    SpecialitiesAssigned,
    TrainerRegistered,
    TrainerRetired,
)
from trainers.models import occupied, sessions
from trainers.slots import Week, ordered


@dataclass(frozen=True, slots=True)
class Register:
    """Adds trainers."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: RegisterTrainer, /) -> Changed:
        """Add a trainer without specialities and without slots."""
        trainer = store.Trainer(
            id=new_id(),
            revision=1,
            status=store.ACTIVE,
            name=command.name,
            bio=command.bio,
            specialities=(),
            week=None,
        )
        fact = TrainerRegistered(command.name, command.bio)
        return await store.add(session, trainer, fact, self.clock.now())


@dataclass(frozen=True, slots=True)
class Present:
    """Changes profiles."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: ChangeProfile, /) -> Changed:
        """Replace name and biography."""
        trainer = await store.lock_active(session, command.trainer_id, command.if_match)
        wanted = {"name": command.name, "bio": command.bio}
        if wanted == {"name": trainer.name, "bio": trainer.bio}:
            return await store.unchanged(session, trainer)
        return await store.record(
            session, trainer, [ProfileChanged(**wanted)], self.clock.now(), **wanted
        )


@dataclass(frozen=True, slots=True)
class Assign:
    """Changes what trainers teach."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: AssignSpecialities, /) -> Changed:
        """Replace all specialities; they are kept sorted, each once."""
        trainer = await store.lock_active(session, command.trainer_id, command.if_match)
        wanted = tuple(sorted(set(command.specialities)))
        if wanted == trainer.specialities:
            return await store.unchanged(session, trainer)
        return await store.record(
            session,
            trainer,
            [SpecialitiesAssigned(wanted)],
            self.clock.now(),
            specialities=list(wanted),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Changes when trainers can be booked."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: SetAvailability, /) -> Changed:
        """Replace all weekly slots; sessions that are booked stay as they are.

        Raises:
            ValueError: the slots overlap, or are no slots.
        """
        trainer = await store.lock_active(session, command.trainer_id, command.if_match)
        week = Week(command.week.time_zone, ordered(command.week.slots))
        if week == trainer.week:
            return await store.unchanged(session, trainer)
        return await store.record(
            session,
            trainer,
            [AvailabilitySet(week)],
            self.clock.now(),
            week=store.WEEK.dump_python(week, mode="json"),
        )


@dataclass(frozen=True, slots=True)
class Retire:
    """Ends the work of trainers."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: RetireTrainer, /) -> Changed:
        """Retire a trainer and cancel the sessions to come. Again changes nothing."""
        trainer = await store.lock(session, command.trainer_id, command.if_match)
        if trainer.status == store.RETIRED:
            return await store.unchanged(session, trainer)
        now = self.clock.now()
        to_come = select(sessions.c.id).where(
            sessions.c.trainer_id == trainer.id,
            sessions.c.status == "booked",
            sessions.c.starts_at > now,
        )
        cancelled = (await session.scalars(to_come.order_by(sessions.c.starts_at))).all()
        await session.execute(delete(occupied).where(occupied.c.session_id.in_(cancelled)))
        await session.execute(
            update(sessions).where(sessions.c.id.in_(cancelled)).values(status="cancelled")
        )
        facts: list[Event] = [SessionCancelled(each, CancelReason.RETIRED) for each in cancelled]
        facts.append(TrainerRetired())
        return await store.record(session, trainer, facts, now, status=store.RETIRED)
