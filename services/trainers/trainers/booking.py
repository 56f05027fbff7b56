"""Handlers of the commands that members give: to book, cancel and rate a session."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import Clock
from chassis.ids import new_id
from trainers import store
from trainers.commands import Booked, BookSession, CancelSession, Changed, RateSession
from trainers.events import CancelReason, SessionBooked, SessionCancelled, SessionRated
from trainers.models import occupied, sessions
from trainers.refusals import Conflict, NotFound
from trainers.slots import Span


@dataclass(frozen=True, slots=True)
class Book:
    """Books sessions, at most `days` ahead."""

    clock: Clock
    days: int

    async def handle(self, session: AsyncSession, command: BookSession, /) -> Booked:
        """Book the slot that begins at the given moment.

        Raises:
            Conflict: `slot-taken`, `no-such-slot` or `not-bookable-now`.
        """
        trainer = await store.lock_active(session, command.trainer_id, command.if_match)
        now = self.clock.now()
        if not now < command.starts_at <= now + timedelta(days=self.days):
            raise Conflict(
                "not-bookable-now",
                "Not bookable now",
                f"A session is booked before it begins, at most {self.days} days ahead.",
            )
        span = None if trainer.week is None else trainer.week.span_at(command.starts_at)
        if span is None:
            raise Conflict(
                "no-such-slot", "No such slot", "The trainer has no slot that begins then."
            )
        session_id = new_id()
        await self._occupy(session, command, session_id, span)
        fact = SessionBooked(session_id, command.member, span.starts_at, span.ends_at)
        done = await store.record(session, trainer, [fact], now)
        return Booked(
            done.trainer_id,
            done.revision,
            done.version,
            session_id=session_id,
            starts_at=span.starts_at,
            ends_at=span.ends_at,
        )

    async def _occupy(
        self, session: AsyncSession, command: BookSession, session_id: str, span: Span
    ) -> None:
        await session.execute(
            insert(sessions).values(
                id=session_id,
                trainer_id=command.trainer_id,
                member=command.member,
                starts_at=span.starts_at,
                ends_at=span.ends_at,
                status="booked",
            )
        )
        cells = [
            {"trainer_id": command.trainer_id, "at": at, "session_id": session_id}
            for at in span.cells()
        ]
        try:
            async with session.begin_nested():
                await session.execute(insert(occupied), cells)
        except IntegrityError:
            raise Conflict(
                "slot-taken", "The slot is taken", "Another session is booked at that time."
            ) from None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Gives sessions back."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: CancelSession, /) -> Changed:
        """Cancel a session before it begins. Again changes nothing.

        Raises:
            NotFound: there is no such session, or it is another member's.
            Conflict: `session-begun`.
        """
        trainer = await store.lock(session, command.trainer_id, command.if_match)
        row = await _session(session, command.trainer_id, command.session_id, command.member)
        if row.status == "cancelled":
            return await store.unchanged(session, trainer)
        now = self.clock.now()
        if row.starts_at <= now:
            raise Conflict("session-begun", "The session has begun", "It cannot be cancelled now.")
        await session.execute(delete(occupied).where(occupied.c.session_id == row.id))
        await session.execute(
            update(sessions).where(sessions.c.id == row.id).values(status="cancelled")
        )
        reason = CancelReason.STAFF if command.member is None else CancelReason.MEMBER
        return await store.record(session, trainer, [SessionCancelled(row.id, reason)], now)


@dataclass(frozen=True, slots=True)
class Rate:
    """Takes ratings."""

    clock: Clock

    async def handle(self, session: AsyncSession, command: RateSession, /) -> Changed:
        """Rate a session that is over, also of a trainer who retired since.

        Raises:
            NotFound: there is no such session, or it is another member's.
            Conflict: `session-not-held`.
        """
        trainer = await store.lock(session, command.trainer_id, command.if_match)
        row = await _session(session, command.trainer_id, command.session_id, command.member)
        now = self.clock.now()
        if row.status == "cancelled" or row.ends_at > now:
            raise Conflict(
                "session-not-held", "The session was not held", "Only one that is over is rated."
            )
        if row.stars == command.stars:
            return await store.unchanged(session, trainer)
        await session.execute(
            update(sessions).where(sessions.c.id == row.id).values(stars=command.stars)
        )
        return await store.record(session, trainer, [SessionRated(row.id, command.stars)], now)


async def _session(
    session: AsyncSession, trainer_id: str, session_id: str, member: str | None
) -> Row[Any]:
    query = select(sessions).where(sessions.c.id == session_id, sessions.c.trainer_id == trainer_id)
    row = (await session.execute(query)).one_or_none()
    if row is None or member not in {None, row.member}:
        raise NotFound(f"There is no session {session_id} of yours with this trainer.")
    return row
