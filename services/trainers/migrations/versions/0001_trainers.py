"""Trainers and sessions, the log of events, and the read model."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import create_idempotency_v1, drop_idempotency_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _write_model()
    _log()
    _read_model()
    create_idempotency_v1(op)


def _write_model() -> None:
    op.create_table(
        "trainers",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("bio", sa.Text, nullable=False),
        sa.Column("specialities", sa.JSON, nullable=False),
        sa.Column("week", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_trainers"),
        sa.CheckConstraint("status IN ('active', 'retired')", name="ck_trainers_status"),
        sa.CheckConstraint("revision > 0", name="ck_trainers_revision"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("trainer_id", sa.String(36), nullable=False),
        sa.Column("member", sa.String(255), nullable=False),
        sa.Column("starts_at", UtcDateTime, nullable=False),
        sa.Column("ends_at", UtcDateTime, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("stars", sa.SmallInteger),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(
            ["trainer_id"], ["trainers.id"], name="fk_sessions_trainer_id_trainers"
        ),
        sa.CheckConstraint("status IN ('booked', 'cancelled')", name="ck_sessions_status"),
        sa.CheckConstraint("stars BETWEEN 1 AND 5", name="ck_sessions_stars"),
        sa.CheckConstraint("ends_at > starts_at", name="ck_sessions_ends_at"),
    )
    op.create_index("ix_sessions_trainer_id_starts_at", "sessions", ["trainer_id", "starts_at"])
    op.create_table(
        "occupied",
        sa.Column("trainer_id", sa.String(36), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("trainer_id", "at", name="pk_occupied"),
        sa.ForeignKeyConstraint(
            ["trainer_id"], ["trainers.id"], name="fk_occupied_trainer_id_trainers"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_occupied_session_id_sessions"
        ),
    )
    op.create_index("ix_occupied_session_id", "occupied", ["session_id"])


def _log() -> None:
    head = op.create_table(
        "log_head",
        sa.Column("id", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log_head"),
        sa.CheckConstraint("id = 1", name="ck_log_head_id"),
    )
    op.bulk_insert(head, [{"id": 1, "position": 0}])
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("trainer_id", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("trace", sa.String(64)),
        sa.PrimaryKeyConstraint("position", name="pk_events"),
        sa.UniqueConstraint("trainer_id", "revision", name="uq_events_trainer_id_revision"),
    )


def _read_model() -> None:
    projections = op.create_table(
        "projections",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_projections"),
    )
    op.bulk_insert(projections, [{"name": "trainers", "position": 0}])
    op.create_table(
        "read_profiles",
        sa.Column("trainer_id", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("bio", sa.Text, nullable=False),
        sa.Column("specialities", sa.JSON, nullable=False),
        sa.Column("week", sa.JSON),
        sa.Column("ratings", sa.Integer, nullable=False),
        sa.Column("stars", sa.Integer, nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("registered_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("trainer_id", name="pk_read_profiles"),
    )
    for column in ("rating", "name", "registered_at"):
        op.create_index(
            f"ix_read_profiles_status_{column}_trainer_id",
            "read_profiles",
            ["status", column, "trainer_id"],
        )
    for table, column, length in (
        ("read_specialities", "speciality", 40),
        ("read_days", "day", 9),
    ):
        op.create_table(
            table,
            sa.Column(column, sa.String(length), nullable=False),
            sa.Column("trainer_id", sa.String(36), nullable=False),
            sa.PrimaryKeyConstraint(column, "trainer_id", name=f"pk_{table}"),
        )
        op.create_index(f"ix_{table}_trainer_id", table, ["trainer_id"])
    op.create_table(
        "read_sessions",
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("trainer_id", sa.String(36), nullable=False),
        sa.Column("member", sa.String(255), nullable=False),
        sa.Column("starts_at", UtcDateTime, nullable=False),
        sa.Column("ends_at", UtcDateTime, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("stars", sa.SmallInteger),
        sa.PrimaryKeyConstraint("session_id", name="pk_read_sessions"),
    )
    op.create_index(
        "ix_read_sessions_trainer_id_starts_at", "read_sessions", ["trainer_id", "starts_at"]
    )


def downgrade() -> None:
    drop_idempotency_v1(op)
    for table in (
        "read_sessions",
        "read_days",
        "read_specialities",
        "read_profiles",
        "projections",
        "events",
        "log_head",
        "occupied",
        "sessions",
        "trainers",
    ):
        op.drop_table(table)
