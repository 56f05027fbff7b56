"""Names of constraints, the chassis' own tables, and the column type for times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, MetaData
from sqlalchemy.types import TypeDecorator

# Every constraint has a name, so that a later migration can drop it on any database.
NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# Outbox, inbox and idempotency keys. Services keep metadata of their own.
chassis_metadata = MetaData(naming_convention=NAMING)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, always UTC: `timestamptz` on PostgreSQL, text in UTC on SQLite.

    Raises:
        ValueError: (as the cause of a `StatementError`) for a naive datetime.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,
    ) -> datetime | None:
        """Convert to UTC; SQLite has no zones, so it is stored without one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime was given; pass an aware one")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return the time aware and in UTC."""
        if value is None:
            return None
        stored: datetime = value
        if dialect.name == "sqlite":
            return stored.replace(tzinfo=UTC)
        return stored.astimezone(UTC)
