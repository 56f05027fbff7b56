"""The one table of the orders service."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Index, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis.database import NAMING, UtcDateTime
from chassis.money import ExactDecimal


class Base(DeclarativeBase):
    """The base of this service's tables."""

    metadata = MetaData(naming_convention=NAMING)


class OrderRow(Base):
    """An order: what was asked for, at what price, and how far its saga is.

    The lines are written and read as a whole and never change after pricing, so they are one
    JSON value; prices in it are decimal strings.
    """

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_owner_id", "owner", "id"),
        # What the recovery worker looks for; finished orders are not in this index.
        Index(
            "ix_orders_due",
            "next_attempt_at",
            sqlite_where=text("next_attempt_at IS NOT NULL"),
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    total_amount: Mapped[Decimal | None] = mapped_column(ExactDecimal)
    currency: Mapped[str | None] = mapped_column(String(3))
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    version: Mapped[int]
    hold: Mapped[int]
    attempt: Mapped[int]
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
