"""Orders, the outbox, and the answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import (
    create_idempotency_v1,
    create_outbox_v1,
    drop_idempotency_v1,
    drop_outbox_v1,
)
from chassis.money import ExactDecimal

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("lines", sa.JSON, nullable=False),
        sa.Column("total_amount", ExactDecimal),
        sa.Column("currency", sa.String(3)),
        sa.Column("reason", sa.JSON),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("hold", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", UtcDateTime),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until", UtcDateTime),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
    )
    op.create_index("ix_orders_owner_id", "orders", ["owner", "id"])
    op.create_index(
        "ix_orders_due",
        "orders",
        ["next_attempt_at"],
        sqlite_where=sa.text("next_attempt_at IS NOT NULL"),
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    create_outbox_v1(op)
    create_idempotency_v1(op)


def downgrade() -> None:
    drop_idempotency_v1(op)
    drop_outbox_v1(op)
    op.drop_table("orders")
