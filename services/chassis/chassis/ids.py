"""Identifiers: UUID version 7 (RFC 9562) as 36-character strings.

They begin with the time in milliseconds, so that new rows land at the end of a B-tree index and
sort by creation.
"""

from __future__ import annotations

import uuid_utils

PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""What a UUID of any version looks like in its canonical text form."""


def new_id() -> str:
    """Return a new UUIDv7 in its canonical text form."""
    return str(uuid_utils.uuid7())
