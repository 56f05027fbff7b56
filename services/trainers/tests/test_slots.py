"""Weekly slots and the instants that they mean, in any zone and on the days when clocks change."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.slots import DAYS, GRID, Day, Slot, Span, Week, ordered

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC")


def grid(quarter):
    """A time of the day by its quarter of an hour."""
    return time(quarter // 4, quarter % 4 * 15)


@st.composite
def weeks(draw):
    """Any week without overlaps."""
    slots = []
    for day in draw(st.sets(st.sampled_from(DAYS), max_size=4)):
        edges = sorted(draw(st.sets(st.integers(0, 95), min_size=2, max_size=8)))
        slots += [
            Slot(day, grid(a), grid(b)) for a, b in zip(edges[::2], edges[1::2], strict=False)
        ]
    return Week(draw(st.sampled_from(ZONES)), ordered(slots))


@given(weeks(), st.dates(date(2026, 1, 1), date(2027, 12, 31)))
@settings(max_examples=150, deadline=None)
def test_what_a_schedule_shows_can_be_booked(week, first):
    """Each span of a calendar is the span of the slot that begins then; all are on the grid."""
    for span in week.spans(first, 14):
        assert week.span_at(span.starts_at) == span
        assert span.starts_at.timestamp() % GRID.total_seconds() == 0
        assert span.ends_at - span.starts_at in {slot.length for slot in week.slots}
        local = span.starts_at.astimezone(ZoneInfo(week.time_zone))
        assert first <= local.date() < first + timedelta(days=14)


@given(weeks(), st.dates(date(2026, 1, 1), date(2027, 12, 31)))
@settings(max_examples=150, deadline=None)
def test_what_can_be_booked_is_on_the_schedule(week, day):
    """The other way round, for each quarter of an hour of a day."""
    start = datetime.combine(day, time(), UTC)
    shown = set(week.spans(day - timedelta(days=1), 3))
    for number in range(96):
        span = week.span_at(start + number * GRID)
        assert span is None or span in shown


def test_summer_and_winter_differ_by_an_hour():
    week = Week("Europe/Berlin", (Slot(Day.MONDAY, time(9), time(10)),))
    [winter] = week.spans(date(2026, 3, 23), 7)
    [summer] = week.spans(date(2026, 3, 30), 7)
    assert winter.starts_at == datetime(2026, 3, 23, 8, tzinfo=UTC)
    assert summer.starts_at == datetime(2026, 3, 30, 7, tzinfo=UTC)


def test_a_time_that_the_clocks_skip_is_no_slot():
    """In Berlin there is no 02:30 on 29 March 2026."""
    week = Week("Europe/Berlin", (Slot(Day.SUNDAY, time(2, 30), time(3, 30)),))
    assert list(week.spans(date(2026, 3, 29), 1)) == []
    assert len(list(week.spans(date(2026, 3, 22), 1))) == 1


def test_of_an_hour_that_comes_twice_the_first_counts():
    """On 25 October 2026 it is 02:30 in Berlin at 00:30 and at 01:30 UTC."""
    week = Week("Europe/Berlin", (Slot(Day.SUNDAY, time(2, 30), time(3)),))
    [span] = week.spans(date(2026, 10, 25), 1)
    assert span.starts_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert week.span_at(datetime(2026, 10, 25, 1, 30, tzinfo=UTC)) is None


def test_a_session_has_its_full_length_when_clocks_change():
    week = Week("Europe/Berlin", (Slot(Day.SUNDAY, time(1), time(4)),))
    for day in (date(2026, 3, 29), date(2026, 10, 25)):
        [span] = week.spans(day, 1)
        assert span.ends_at - span.starts_at == timedelta(hours=3)
        assert len(list(span.cells())) == 12


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ([(Day.MONDAY, time(9), time(9))], "monday 09:00: ends before it begins"),
        ([(Day.MONDAY, time(9), time(8))], "monday 09:00: ends before it begins"),
        ([(Day.MONDAY, time(9, 5), time(10))], "quarter of an hour"),
        ([(Day.MONDAY, time(9), time(10, 0, 1))], "quarter of an hour"),
        ([(Day.MONDAY, time(9, tzinfo=UTC), time(10))], "plain time"),
        (
            [(Day.MONDAY, time(9), time(10)), (Day.MONDAY, time(9, 45), time(11))],
            "monday 09:45: overlaps the slot before it",
        ),
    ],
)
def test_slots_that_make_no_week_are_refused(slots, said):
    with pytest.raises(ValueError, match=said):
        ordered([Slot(*each) for each in slots])


def test_spans_that_touch_do_not_overlap():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    hour = timedelta(hours=1)
    assert not Span(at, at + hour).overlaps(Span(at + hour, at + 2 * hour))
    assert Span(at, at + 2 * hour).overlaps(Span(at + hour, at + 3 * hour))
