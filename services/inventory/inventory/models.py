"""The tables of the stock: counts per item, reservations with their lines, and the ledger."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

from chassis.database import NAMING, UtcDateTime

metadata = MetaData(naming_convention=NAMING)

# SQLite counts rows only in a column of exactly the type INTEGER.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")

stock = Table(
    "stock",
    metadata,
    Column("item_id", String(63), primary_key=True),
    # Units in the warehouse, and how many of them are promised to held reservations.
    Column("on_hand", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # The last line of defence: no code path, present or future, can oversell.
    CheckConstraint("on_hand >= 0", name="on_hand"),
    CheckConstraint("held >= 0 AND held <= on_hand", name="held"),
    Index(
        "ix_stock_out_of_stock",
        "item_id",
        postgresql_where=text("on_hand = held"),
        sqlite_where=text("on_hand = held"),
    ),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint(
        "state IN ('held', 'confirmed', 'released', 'expired', 'returned')", name="state"
    ),
    Index(
        "ix_reservations_expires_at_held",
        "expires_at",
        postgresql_where=text("state = 'held'"),
        sqlite_where=text("state = 'held'"),
    ),
)

lines = Table(
    "reservation_lines",
    metadata,
    Column("reservation_id", ForeignKey("reservations.id"), primary_key=True),
    Column("item_id", ForeignKey("stock.item_id"), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    CheckConstraint("quantity > 0", name="quantity"),
    Index("ix_reservation_lines_item_id", "item_id"),
)

# Append-only. For each item the sums of both columns are its `on_hand` and `held`; `audit` checks.
movements = Table(
    "movements",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("item_id", ForeignKey("stock.item_id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("on_hand_change", BigInteger, nullable=False),
    Column("held_change", BigInteger, nullable=False),
    Column("reservation_id", String(64), nullable=True),
    # The subject of the token that asked for it; null for the service itself (expiry, seed).
    Column("actor", String(255), nullable=True),
    Column("at", UtcDateTime, nullable=False),
    CheckConstraint(
        "kind IN ('set', 'restock', 'hold', 'confirm', 'release', 'expire', 'return')", name="kind"
    ),
    Index("ix_movements_item_id_id", "item_id", "id"),
    Index(
        "uq_movements_reservation_id_item_id_kind", "reservation_id", "item_id", "kind", unique=True
    ),
)
