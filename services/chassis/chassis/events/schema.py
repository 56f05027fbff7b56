"""What the migrations of services create for the chassis.

A migration that has run somewhere must not change: these functions are frozen. A change of a
table is a new function (`outbox_v2(op)`), which each service calls in a new migration.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from chassis.database.metadata import UtcDateTime


def create_outbox_v1(op: Operations) -> None:
    """Create the table of `chassis.events.publish` and its relay."""
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("subscriber", sa.String(500), nullable=False),
        sa.Column("type", sa.String(200), nullable=False),
        sa.Column("subject", sa.String(500), nullable=False),
        sa.Column("ordering_key", sa.String(500), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("available_at", UtcDateTime, nullable=False),
        sa.Column("lease", sa.String(36)),
        sa.Column("last_error", sa.String(500)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        sa.UniqueConstraint("id", "subscriber", name="uq_outbox_id_subscriber"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="ck_outbox_state"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_due", "outbox", ["state", "subscriber", "available_at"])
    op.create_index("ix_outbox_order", "outbox", ["state", "subscriber", "ordering_key", "seq"])
    op.create_index("ix_outbox_finished", "outbox", ["state", "finished_at"])


def create_inbox_v1(op: Operations) -> None:
    """Create the table that makes consumers of events idempotent."""
    op.create_table(
        "inbox",
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("type", sa.String(200), nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("source", "id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_received_at", "inbox", ["received_at"])


def create_idempotency_v1(op: Operations) -> None:
    """Create the table of `chassis.idempotency`."""
    op.create_table(
        "idempotency",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("lease", sa.String(36), nullable=False),
        sa.Column("lease_until", UtcDateTime, nullable=False),
        sa.Column("resource_id", sa.String(200)),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])


def drop_outbox_v1(op: Operations) -> None:
    """Undo `create_outbox_v1`."""
    op.drop_table("outbox")


def drop_inbox_v1(op: Operations) -> None:
    """Undo `create_inbox_v1`."""
    op.drop_table("inbox")


def drop_idempotency_v1(op: Operations) -> None:
    """Undo `create_idempotency_v1`."""
    op.drop_table("idempotency")
