"""Times on the wire: with their offset, or not at all."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from chassis.moments import Moment

MOMENT = TypeAdapter(Moment)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("2026-05-04T12:00:00Z", NOON),
        ("2026-05-04t14:00:00+02:00", NOON),
        ("2026-05-04T06:30:00.000001-05:30", NOON + timedelta(microseconds=1)),
        (NOON.astimezone(timezone(timedelta(hours=2))), NOON),
    ],
)
def test_a_time_is_kept_in_utc(given, at):
    """To the microsecond."""
    found = MOMENT.validate_python(given)
    assert found == at
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "given",
    [
        "2026-05-04T12:00:00",
        "2026-05-04T12:00:00 02:00",
        "2026-05-04T12:00Z",
        "2026-05-04",
        "2026-02-30T12:00:00Z",
        "\N{ARABIC-INDIC DIGIT TWO}026-05-04T12:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1777888800",
        1777888800,
        True,
        None,
        datetime(2026, 5, 4),  # noqa: DTZ001  (naive on purpose)
    ],
)
def test_what_is_no_moment_is_refused(given):
    """A number, or a time of nowhere, would be another time for each reader."""
    with pytest.raises(ValidationError):
        MOMENT.validate_python(given)
