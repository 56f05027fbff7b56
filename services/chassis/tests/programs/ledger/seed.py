"""One row for a first look."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def seed(session: AsyncSession, now: datetime) -> int:
    """Add row 1 unless it is there."""
    assert now.tzinfo is not None
    added = await session.execute(text("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING"))
    return added.rowcount
