"""An index of the tasks in the bin, which is emptied."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INDEX = "ix_tasks_deleted_at"


def upgrade() -> None:
    binned = sa.text("deleted_at IS NOT NULL")
    if op.get_context().dialect.name == "sqlite":
        op.create_index(_INDEX, "tasks", ["deleted_at"], sqlite_where=binned)
        return
    with op.get_context().autocommit_block():
        # Writers go on meanwhile. A try that failed leaves an index behind that is never used.
        op.drop_index(_INDEX, "tasks", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _INDEX, "tasks", ["deleted_at"], postgresql_where=binned, postgresql_concurrently=True
        )


def downgrade() -> None:
    op.drop_index(_INDEX, "tasks")
