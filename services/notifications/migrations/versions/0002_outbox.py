"""The outbox: a new notification is told to who streams it."""

from alembic import op

from chassis.events.schema import create_outbox_v1, drop_outbox_v1

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_outbox_v1(op)


def downgrade() -> None:
    drop_outbox_v1(op)
