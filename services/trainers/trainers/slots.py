"""Weekly slots in a time zone, and the moments that they mean. No database, no clock.

A trainer says "Mondays from 09:00 to 10:00 in Berlin". That is another instant in summer than in
winter; on the day when clocks go forward a slot may not exist, and on the day when they go back
an hour comes twice, of which only the first counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from zoneinfo import ZoneInfo

GRID = timedelta(minutes=15)
"""Slots begin and end on this grid, in every zone: all offsets of today are multiples of it."""


class Day(StrEnum):
    """A day of the week, in the trainer's time zone."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


DAYS = tuple(Day)


@dataclass(frozen=True, slots=True)
class Slot:
    """One bookable time of every week, in local time."""

    day: Day
    starts: time
    ends: time

    @property
    def length(self) -> timedelta:
        """How long a session in this slot takes."""
        return _since_midnight(self.ends) - _since_midnight(self.starts)

    @property
    def order(self) -> tuple[int, time]:
        """Its place in the week."""
        return DAYS.index(self.day), self.starts


@dataclass(frozen=True, slots=True)
class Span:
    """A time on the calendar, in UTC."""

    starts_at: datetime
    ends_at: datetime

    def overlaps(self, other: "Span") -> bool:
        """Tell whether the two have a moment in common."""
        return self.starts_at < other.ends_at and other.starts_at < self.ends_at

    def cells(self) -> Iterator[datetime]:
        """Yield the beginnings of the cells of the grid that it covers."""
        at = self.starts_at
        while at < self.ends_at:
            yield at
            at += GRID


@dataclass(frozen=True)
class Week:
    """What a trainer offers every week; without slots, nothing."""

    time_zone: str
    slots: tuple[Slot, ...]

    @cached_property
    def zone(self) -> ZoneInfo:
        """The rules of the time zone."""
        return ZoneInfo(self.time_zone)

    def span_at(self, moment: datetime) -> Span | None:
        """Return the span of the slot that begins at `moment`, None if none does."""
        local = moment.astimezone(self.zone)
        if local.fold:
            return None
        for slot in self.slots:
            if (DAYS[local.weekday()], local.time()) == (slot.day, slot.starts):
                return _span(local, slot)
        return None

    def spans(self, first: date, days: int) -> Iterator[Span]:
        """Yield the spans that begin on `days` local dates from `first` on, in their order."""
        for number in range(days):
            day = first + timedelta(days=number)
            for slot in self.slots:
                if slot.day is not DAYS[day.weekday()]:
                    continue
                local = datetime.combine(day, slot.starts, self.zone)
                # A time that the clocks skip comes back as another one.
                if local.astimezone(UTC).astimezone(self.zone).time() == slot.starts:
                    yield _span(local, slot)


def ordered(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return the slots in the order of the week.

    Raises:
        ValueError: one is empty, off the grid, or overlaps another; the text says which.
    """
    for slot in slots:
        for moment in (slot.starts, slot.ends):
            if moment.tzinfo is not None or _since_midnight(moment) % GRID:
                raise ValueError(f"{slot.day} {moment}: give a plain time on a quarter of an hour")
        if slot.length <= timedelta(0):
            raise ValueError(f"{slot.day} {slot.starts:%H:%M}: ends before it begins")
    # A time with an offset has no order among plain ones, so it is refused before.
    found = tuple(sorted(slots, key=lambda slot: slot.order))
    for before, after in pairwise(found):
        if before.day is after.day and after.starts < before.ends:
            raise ValueError(f"{after.day} {after.starts:%H:%M}: overlaps the slot before it")
    return found


def _span(local: datetime, slot: Slot) -> Span:
    # Added in UTC: a session has its full length even while clocks change.
    starts_at = local.astimezone(UTC)
    return Span(starts_at, starts_at + slot.length)


def _since_midnight(moment: time) -> timedelta:
    return timedelta(
        hours=moment.hour,
        minutes=moment.minute,
        seconds=moment.second,
        microseconds=moment.microsecond,
    )
