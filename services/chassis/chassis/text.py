"""Patterns for the text of a schema: what people write and every database can store."""

ONE_LINE = r"^[^\x00-\x20\x7F]([^\x00-\x1F\x7F]*[^\x00-\x20\x7F])?$"
"""No control characters, no spaces around it, not empty: a name or a title."""

STORABLE = r"^[^\x00]*$"
"""Any text but the character NUL, which PostgreSQL cannot store."""
