"""Tables of auth. Secrets are stored as hashes; private keys are sealed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis.database import NAMING, UtcDateTime


class Base(DeclarativeBase):
    """The metadata that the migrations must match."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012  (SQLAlchemy's own protocol)


class User(Base):
    """A person. `email` is normalised; `scopes` is a space-separated list (RFC 6749 3.3)."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    scopes: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class SigningKey(Base):
    """One generation of the key that signs access tokens.

    Nothing in a row changes: what a key may do at an instant follows from the two times of it and
    of its successor, so that all replicas agree without being told. See `auth.signing_keys`.
    """

    __tablename__ = "signing_keys"

    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kid: Mapped[str] = mapped_column(String(64), unique=True)
    sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    activates_at: Mapped[datetime]


class Session(Base):
    """A login: the family of refresh tokens that descend from it."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    scopes: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    revoked_for: Mapped[str | None] = mapped_column(String(16))


class RefreshToken(Base):
    """One refresh token, known by its SHA-256; `salt` derives its successor (`auth.sessions`)."""

    __tablename__ = "refresh_tokens"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), index=True
    )
    salt: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ApiKey(Base):
    """A key of a user for programs; of the secret only its SHA-256 is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(Text)
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class LoginFailures(Base):
    """Failed logins of an account from one network, or from all of them (`network` is `*`)."""

    __tablename__ = "login_failures"

    account: Mapped[str] = mapped_column(String(64), primary_key=True)
    network: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int]
    failed_at: Mapped[datetime | None] = mapped_column(index=True)
    locked_until: Mapped[datetime | None]
    succeeded_at: Mapped[datetime | None]
