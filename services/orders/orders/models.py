"""The one table of the orders service."""

from sqlalchemy import JSON, Column, Index, Integer, MetaData, String, Table, text

from chassis.database import NAMING, UtcDateTime
from chassis.money import ExactDecimal

metadata = MetaData(naming_convention=NAMING)

# What was asked for, at what price, and how far the saga is. The lines are written and read as a
# whole and never change after pricing, so they are one JSON value; prices in it are strings.
orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("lines", JSON, nullable=False),
    Column("total_amount", ExactDecimal),
    Column("currency", String(3)),
    Column("reason", JSON(none_as_null=True)),
    Column("version", Integer, nullable=False),
    Column("hold", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_attempt_at", UtcDateTime),
    Column("lease_owner", String(64)),
    Column("lease_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_orders_owner_id", "owner", "id"),
    # What the recovery worker looks for; finished orders are not in this index.
    Index(
        "ix_orders_due",
        "next_attempt_at",
        sqlite_where=text("next_attempt_at IS NOT NULL"),
        postgresql_where=text("next_attempt_at IS NOT NULL"),
    ),
)
