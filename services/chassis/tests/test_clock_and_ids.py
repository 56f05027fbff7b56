"""Time and identifiers."""

import uuid
from datetime import UTC

from chassis.clock import Clock, SystemClock
from chassis.ids import new_id


async def test_the_system_clock_tells_aware_utc_and_sleeps() -> None:
    clock = SystemClock()
    assert isinstance(clock, Clock)
    assert clock.now().tzinfo is UTC
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009
    await clock.sleep(-1)


def test_ids_are_ordered_version_7_uuids() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {len(each) for each in ids} == {36}
