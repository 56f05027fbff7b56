"""One database behind one URL: PostgreSQL (psycopg 3) or SQLite (aiosqlite), SQLAlchemy 2 async.

A service asks for `SessionDep` (a write transaction, committed before the response is sent) or
`ReadSessionDep`; background work uses `Database.session()` and `Database.reading()`.
"""

from chassis.database.dependencies import ReadSessionDep, SessionDep, get_database
from chassis.database.engine import async_url
from chassis.database.errors import install_database_handlers, is_retryable, is_unavailable
from chassis.database.metadata import NAMING, UtcDateTime, chassis_metadata
from chassis.database.session import Database, after_commit, database_of, run_transaction
from chassis.database.signals import Signal

__all__ = [
    "NAMING",
    "Database",
    "ReadSessionDep",
    "SessionDep",
    "Signal",
    "UtcDateTime",
    "after_commit",
    "async_url",
    "chassis_metadata",
    "database_of",
    "get_database",
    "install_database_handlers",
    "is_retryable",
    "is_unavailable",
    "run_transaction",
]
