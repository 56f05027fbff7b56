"""The one table of the tasks service."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from chassis.database import NAMING, UtcDateTime

metadata = MetaData(naming_convention=NAMING)

# Written out, also in the query: only so can the database see that the index serves it.
WAITING = text("reminded = 0 AND status = 'open' AND deleted_at IS NULL")
"""Which tasks may still fall due soon."""

BINNED = text("deleted_at IS NOT NULL")
"""Which tasks are in the bin."""

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("title", String(200), nullable=False),
    Column("description", Text, nullable=False),
    # Title and description as they are searched for.
    Column("words", Text, nullable=False),
    Column("status", String(8), nullable=False),
    # The rank, so that sorting by it is sorting by importance.
    Column("priority", SmallInteger, nullable=False),
    Column("due_at", UtcDateTime),
    # 1 once its owner was told that it falls due, or when there is nothing to tell.
    Column("reminded", SmallInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    CheckConstraint("status IN ('open', 'done')", name="status"),
    CheckConstraint("priority BETWEEN 0 AND 3", name="priority"),
    CheckConstraint("reminded IN (0, 1)", name="reminded"),
    # One index for each order of the list; the id breaks ties.
    Index("ix_tasks_owner_created_at_id", "owner", "created_at", "id"),
    Index("ix_tasks_owner_due_at_id", "owner", "due_at", "id"),
    Index("ix_tasks_owner_priority_id", "owner", "priority", "id"),
    Index("ix_tasks_due_soon", "due_at", sqlite_where=WAITING, postgresql_where=WAITING),
    Index("ix_tasks_deleted_at", "deleted_at", sqlite_where=BINNED, postgresql_where=BINNED),
)
