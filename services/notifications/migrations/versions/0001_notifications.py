"""Notifications, the inbox, and the answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import (
    create_idempotency_v1,
    create_inbox_v1,
    drop_idempotency_v1,
    drop_inbox_v1,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("recipient", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("event_id", sa.String(200)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("read_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint("event_id", name="uq_notifications_event_id"),
    )
    op.create_index("ix_notifications_recipient_id", "notifications", ["recipient", "id"])
    create_inbox_v1(op)
    create_idempotency_v1(op)


def downgrade() -> None:
    drop_idempotency_v1(op)
    drop_inbox_v1(op)
    op.drop_table("notifications")
