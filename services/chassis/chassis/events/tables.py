"""The tables of the outbox and the inbox, as the code of today uses them.

`schema.py` has what migrations create; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from chassis.database.metadata import UtcDateTime, chassis_metadata

PENDING = "pending"
DELIVERED = "delivered"
DEAD = "dead"

# One row per message and subscriber: each is delivered, retried and given up on its own.
outbox = Table(
    "outbox",
    chassis_metadata,
    # SQLite numbers rows by itself only for a column of type INTEGER.
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("subscriber", String(500), nullable=False),
    Column("type", String(200), nullable=False),
    Column("subject", String(500), nullable=False),
    Column("ordering_key", String(500), nullable=False),
    Column("event", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    # When it may be tried (again); a relay that takes the row moves it to the end of its lease.
    Column("available_at", UtcDateTime, nullable=False),
    Column("lease", String(36)),
    Column("last_error", String(500)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    UniqueConstraint("id", "subscriber"),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    Index("ix_outbox_due", "state", "subscriber", "available_at"),
    Index("ix_outbox_order", "state", "subscriber", "ordering_key", "seq"),
    Index("ix_outbox_finished", "state", "finished_at"),
    # A number is never given twice, also after the newest rows are purged.
    sqlite_autoincrement=True,
)

inbox = Table(
    "inbox",
    chassis_metadata,
    Column("source", String(200), primary_key=True),
    Column("id", String(200), primary_key=True),
    Column("type", String(200), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Index("ix_inbox_received_at", "received_at"),
)
