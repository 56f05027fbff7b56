"""The queries and their handlers: looks at the read model, which may be a moment old."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import Clock
from chassis.pagination import Cursor, paginate
from trainers.messages import Query
from trainers.models import calendar, profiles, teaches, works
from trainers.refusals import NotFound
from trainers.slots import Day, Span, Week
from trainers.store import ACTIVE, WEEK

_LONGEST = timedelta(days=1)


class Sort(StrEnum):
    """The orders of a search; a minus sign means descending."""

    RATING_DESC = "-rating"
    NAME = "name"
    REGISTERED_DESC = "-registered_at"


@dataclass(frozen=True, slots=True)
class Profile:
    """A trainer as the read model shows them. `rating` is in hundredths of a star."""

    id: str
    revision: int
    status: str
    name: str
    bio: str
    specialities: tuple[str, ...]
    week: Week | None
    rating: int
    ratings: int
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as its member sees it."""

    id: str
    trainer_id: str
    starts_at: datetime
    ends_at: datetime
    status: str
    stars: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A time of a trainer's calendar. `session_id` is told to who may know it."""

    span: Span
    free: bool
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class GetProfile(Query[Profile]):
    """How is this trainer presented?"""

    trainer_id: str


@dataclass(frozen=True, slots=True)
class SearchTrainers(Query[tuple[list[Profile], str | None]]):
    """Which trainers fit all of this? Gives a page, and the cursor of the next one."""

    page: Cursor
    speciality: str | None = None
    day: Day | None = None
    min_rating: int = 0
    sort: Sort = Sort.RATING_DESC


@dataclass(frozen=True, slots=True)
class GetSchedule(Query[list[Entry]]):
    """What is free, and what is booked, on these local days of the trainer?

    `viewer` is told the ids of their own sessions, staff (None) of all.
    """

    trainer_id: str
    first: date | None
    days: int
    viewer: str | None


@dataclass(frozen=True, slots=True)
class GetSession(Query[SessionView]):
    """What became of this session of `viewer`, or for staff (None) of anybody?"""

    trainer_id: str
    session_id: str
    viewer: str | None


class Profiles:
    """Answers `GetProfile`."""

    async def handle(self, session: AsyncSession, query: GetProfile, /) -> Profile:
        """Return a profile, of a retired trainer too."""
        return _profile(await _row(session, query.trainer_id))


class Search:
    """Answers `SearchTrainers`."""

    async def handle(
        self, session: AsyncSession, query: SearchTrainers, /
    ) -> tuple[list[Profile], str | None]:
        """Return one page of the trainers who work and fit."""
        wanted = select(profiles).where(profiles.c.status == ACTIVE)
        if query.min_rating:
            wanted = wanted.where(profiles.c.rating >= query.min_rating)
        for table, column, value in (
            (teaches, teaches.c.speciality, query.speciality),
            (works, works.c.day, query.day),
        ):
            if value is not None:
                these = select(table.c.trainer_id).where(column == str(value))
                wanted = wanted.where(profiles.c.trainer_id.in_(these))
        scope = f"trainers {query.sort} {query.speciality} {query.day} {query.min_rating}"
        rows, cursor = await paginate(session, wanted, _order(query.sort), query.page, scope=scope)
        return [_profile(row) for row in rows], cursor


@dataclass(frozen=True, slots=True)
class Schedule:
    """Answers `GetSchedule`. What begins later than in `days` cannot be booked yet."""

    clock: Clock
    days: int

    async def handle(self, session: AsyncSession, query: GetSchedule, /) -> list[Entry]:
        """Return the free slots to come and the booked sessions, in their order."""
        trainer = _profile(await _row(session, query.trainer_id))
        now = self.clock.now()
        zone: tzinfo = UTC if trainer.week is None else trainer.week.zone
        first = query.first or now.astimezone(zone).date()
        # By the clock of the trainer, a day begins at another instant than in UTC.
        begin = datetime.combine(first, time.min, zone)
        end = datetime.combine(first + timedelta(days=query.days), time.min, zone)
        booked = await self._booked(session, query.trainer_id, begin, end)
        entries = [
            Entry(
                Span(row.starts_at, row.ends_at),
                free=False,
                session_id=row.session_id if query.viewer in {None, row.member} else None,
            )
            for row in booked
            if begin <= row.starts_at < end
        ]
        if trainer.week is not None and trainer.status == ACTIVE:
            taken = [Span(row.starts_at, row.ends_at) for row in booked]
            last = now + timedelta(days=self.days)
            entries += [
                Entry(span, free=True)
                for span in trainer.week.spans(first, query.days)
                if now < span.starts_at <= last and not any(map(span.overlaps, taken))
            ]
        return sorted(entries, key=lambda entry: entry.span.starts_at)

    @staticmethod
    async def _booked(
        session: AsyncSession, trainer_id: str, begin: datetime, end: datetime
    ) -> list[Row[Any]]:
        """Return all sessions that can overlap the time; none is longer than a day."""
        rows = await session.execute(
            select(calendar)
            .where(
                calendar.c.trainer_id == trainer_id,
                calendar.c.status == "booked",
                calendar.c.starts_at > begin - _LONGEST,
                calendar.c.starts_at < end + _LONGEST,
            )
            .order_by(calendar.c.starts_at)
        )
        return list(rows)


class Sessions:
    """Answers `GetSession`."""

    async def handle(self, session: AsyncSession, query: GetSession, /) -> SessionView:
        """Return a session; another member's does not exist."""
        wanted = select(calendar).where(
            calendar.c.session_id == query.session_id,
            calendar.c.trainer_id == query.trainer_id,
        )
        row = (await session.execute(wanted)).one_or_none()
        if row is None or query.viewer not in {None, row.member}:
            raise NotFound(f"There is no session {query.session_id} of yours with this trainer.")
        return SessionView(
            row.session_id, row.trainer_id, row.starts_at, row.ends_at, row.status, row.stars
        )


def _order(sort: Sort) -> list[ColumnElement[Any]]:
    match sort:
        case Sort.NAME:
            return [profiles.c.name, profiles.c.trainer_id]
        case Sort.REGISTERED_DESC:
            return [profiles.c.registered_at.desc(), profiles.c.trainer_id.desc()]
        case Sort.RATING_DESC:
            return [profiles.c.rating.desc(), profiles.c.trainer_id.desc()]


async def _row(session: AsyncSession, trainer_id: str) -> Row[Any]:
    query = select(profiles).where(profiles.c.trainer_id == trainer_id)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"There is no trainer {trainer_id}, or the read model does not show it yet.")
    return row


def _profile(row: Row[Any]) -> Profile:
    return Profile(
        id=row.trainer_id,
        revision=row.revision,
        status=row.status,
        name=row.name,
        bio=row.bio,
        specialities=tuple(row.specialities),
        week=None if row.week is None else WEEK.validate_python(row.week),
        rating=row.rating,
        ratings=row.ratings,
        registered_at=row.registered_at,
    )
