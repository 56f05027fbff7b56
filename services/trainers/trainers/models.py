"""The tables: the write model, the log of events, and the read model that is made of the log.

Commands touch the first two, the projector reads the log and writes the third, queries read the
third only. So the read model may be changed, dropped and rebuilt; the others are the truth.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from chassis.database import NAMING, UtcDateTime

metadata = MetaData(naming_convention=NAMING)

# The write model: what commands need to decide.

trainers = Table(
    "trainers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("name", String(120), nullable=False),
    Column("bio", Text, nullable=False),
    Column("specialities", JSON, nullable=False),
    Column("week", JSON(none_as_null=True), nullable=True),
    CheckConstraint("status IN ('active', 'retired')", name="status"),
    CheckConstraint("revision > 0", name="revision"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("trainer_id", ForeignKey("trainers.id"), nullable=False),
    Column("member", String(255), nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("status", String(16), nullable=False),
    Column("stars", SmallInteger, nullable=True),
    CheckConstraint("status IN ('booked', 'cancelled')", name="status"),
    CheckConstraint("stars BETWEEN 1 AND 5", name="stars"),
    CheckConstraint("ends_at > starts_at", name="ends_at"),
    Index("ix_sessions_trainer_id_starts_at", "trainer_id", "starts_at"),
)

# A booked session owns each quarter of an hour that it covers. The key is the rule that no code
# path can break, on any database: a trainer is in one session at a time, whatever their slots
# were when it was booked.
occupied = Table(
    "occupied",
    metadata,
    Column("trainer_id", ForeignKey("trainers.id"), primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("session_id", ForeignKey("sessions.id"), nullable=False),
    Index("ix_occupied_session_id", "session_id"),
)

# The log. One row of `log_head` says where it ends; see `log.append`.

log_head = Table(
    "log_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="id"),
)

events = Table(
    "events",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("trainer_id", String(36), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    # The W3C trace context of the command, so that its projection is seen in the same trace.
    Column("trace", String(64), nullable=True),
    UniqueConstraint("trainer_id", "revision"),
)

# The read model. No foreign keys between its tables: it is checked by being rebuilt.

projections = Table(
    "projections",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

profiles = Table(
    "read_profiles",
    metadata,
    Column("trainer_id", String(36), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("name", String(120), nullable=False),
    Column("bio", Text, nullable=False),
    Column("specialities", JSON, nullable=False),
    Column("week", JSON(none_as_null=True), nullable=True),
    Column("ratings", Integer, nullable=False),
    Column("stars", Integer, nullable=False),
    # Hundredths of a star, 0 without ratings: an integer sorts and pages alike everywhere.
    Column("rating", Integer, nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    Index("ix_read_profiles_status_rating_trainer_id", "status", "rating", "trainer_id"),
    Index("ix_read_profiles_status_name_trainer_id", "status", "name", "trainer_id"),
    Index(
        "ix_read_profiles_status_registered_at_trainer_id",
        "status",
        "registered_at",
        "trainer_id",
    ),
)

teaches = Table(
    "read_specialities",
    metadata,
    Column("speciality", String(40), primary_key=True),
    Column("trainer_id", String(36), primary_key=True),
    Index("ix_read_specialities_trainer_id", "trainer_id"),
)

works = Table(
    "read_days",
    metadata,
    Column("day", String(9), primary_key=True),
    Column("trainer_id", String(36), primary_key=True),
    Index("ix_read_days_trainer_id", "trainer_id"),
)

calendar = Table(
    "read_sessions",
    metadata,
    Column("session_id", String(36), primary_key=True),
    Column("trainer_id", String(36), nullable=False),
    Column("member", String(255), nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("status", String(16), nullable=False),
    Column("stars", SmallInteger, nullable=True),
    Index("ix_read_sessions_trainer_id_starts_at", "trainer_id", "starts_at"),
)

READ_MODEL = (profiles, teaches, works, calendar)
