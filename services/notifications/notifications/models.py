"""The one table of the notifications service."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis.database import NAMING, UtcDateTime


class Base(DeclarativeBase):
    """The base of this service's tables."""

    metadata = MetaData(naming_convention=NAMING)


class Notification(Base):
    """What was told to whom. `event_id` names the event that caused it, None for a direct one."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("event_id"),
        Index("ix_notifications_recipient_id", "recipient", "id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    recipient: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    event_id: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
