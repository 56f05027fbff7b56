"""Tasks, the outbox, and the answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import (
    create_idempotency_v1,
    create_outbox_v1,
    drop_idempotency_v1,
    drop_outbox_v1,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("due_at", UtcDateTime),
        sa.Column("reminded", sa.SmallInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("completed_at", UtcDateTime),
        sa.Column("deleted_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.CheckConstraint("status IN ('open', 'done')", name="ck_tasks_status"),
        sa.CheckConstraint("priority BETWEEN 0 AND 3", name="ck_tasks_priority"),
        sa.CheckConstraint("reminded IN (0, 1)", name="ck_tasks_reminded"),
    )
    op.create_index("ix_tasks_owner_created_at_id", "tasks", ["owner", "created_at", "id"])
    op.create_index("ix_tasks_owner_due_at_id", "tasks", ["owner", "due_at", "id"])
    op.create_index("ix_tasks_owner_priority_id", "tasks", ["owner", "priority", "id"])
    waiting = sa.text("reminded = 0 AND status = 'open' AND deleted_at IS NULL")
    op.create_index(
        "ix_tasks_due_soon", "tasks", ["due_at"], sqlite_where=waiting, postgresql_where=waiting
    )
    create_idempotency_v1(op)
    create_outbox_v1(op)


def downgrade() -> None:
    drop_outbox_v1(op)
    drop_idempotency_v1(op)
    op.drop_table("tasks")
