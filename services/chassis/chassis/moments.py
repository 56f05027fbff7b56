"""Times on the wire: RFC 3339 with an offset, and nothing else that could be taken for one."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _has_an_offset(value: Any) -> Any:
    """Refuse what pydantic takes for a time besides RFC 3339: numbers, and times of nowhere."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError(
        "a time needs its offset: 2026-05-04T12:00:00+02:00 or ...Z (in a URL write + as %2B)"
    )


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is out of the calendar in UTC") from None


LocalMoment = Annotated[AwareDatetime, BeforeValidator(_has_an_offset)]
"""A time with its offset from UTC (RFC 3339), which it keeps."""

Moment = Annotated[LocalMoment, AfterValidator(_in_utc)]
"""A time with its offset from UTC (RFC 3339); kept in UTC, to the microsecond."""
