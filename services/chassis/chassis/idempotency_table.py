"""The table of idempotency keys, apart from its use so that migrations can import it alone."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, Text

from chassis.database.metadata import UtcDateTime, chassis_metadata

idempotency_keys = Table(
    "idempotency",
    chassis_metadata,
    # SHA-256 of caller, method, path and key.
    Column("id", String(64), primary_key=True),
    # SHA-256 of query and body.
    Column("fingerprint", String(64), nullable=False),
    # Who works on it, and until when nobody else may.
    Column("lease", String(36), nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("resource_id", String(200)),
    # The answer; null until it is completed.
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("ix_idempotency_expires_at", "expires_at"),
)
