"""How far the read model is behind the log."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from trainers.models import events, log_head, projections

PROJECTION = "trainers"

_POSITION = select(projections.c.position).where(projections.c.name == PROJECTION).scalar_subquery()
_OLDEST = (
    select(events.c.at)
    .where(events.c.position > _POSITION)
    .order_by(events.c.position)
    .limit(1)
    .scalar_subquery()
)
_READ = select(
    _POSITION.label("position"), log_head.c.position.label("head"), _OLDEST.label("oldest")
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The version of the read model, that of the log, and since when the next event waits."""

    position: int
    head: int
    oldest: datetime | None

    @property
    def events(self) -> int:
        """How many events are not projected yet."""
        return max(0, self.head - self.position)

    def seconds(self, now: datetime) -> float:
        """Return how old the oldest of them is, 0 when there is none."""
        return 0.0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())

    def headers(self, now: datetime) -> dict[str, str]:
        """Return what an answer from the read model says of itself."""
        return {
            "X-Projection-Version": str(self.position),
            "X-Projection-Lag-Seconds": f"{self.seconds(now):.3f}",
        }


async def read(session: AsyncSession) -> Progress:
    """Return where log and read model stand; one statement on primary keys.

    Read it before the read model itself: what follows in the session is at least as new.
    """
    row = (await session.execute(_READ)).one()
    return Progress(row.position, row.head, row.oldest)
