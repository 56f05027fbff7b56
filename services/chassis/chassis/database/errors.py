"""Which database errors pass by themselves, and the problems they become (RFC 9457)."""

from __future__ import annotations

import sqlite3

from fastapi import FastAPI, Request
from sqlalchemy import exc
from starlette.responses import Response

from chassis.problems import Problem, problem_response

RETRY_AFTER_SECONDS = 1

# 40001 serialization failure, 40P01 deadlock: PostgreSQL rolled back; the same work may succeed.
_RETRYABLE_STATES = frozenset({"40001", "40P01"})
# Classes of SQLSTATE that speak of the server's condition, not of the statement: connection,
# rollback, resources, lock not available, operator intervention (timeouts too), system error.
_UNAVAILABLE_CLASSES = ("08", "40", "53", "55P03", "57", "58", "25P03", "25P04")
_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNAVAILABLE_CODES = _BUSY_CODES | {
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
}


def _sqlite_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte is the primary code of an extended one.
    return code & 0xFF if isinstance(code, int) else None


def is_retryable(error: BaseException) -> bool:
    """Tell whether the transaction was rolled back for a reason that a new try may not meet."""
    if not isinstance(error, exc.DBAPIError):
        return False
    cause = error.orig
    if cause is None:
        return False
    return (
        getattr(cause, "sqlstate", None) in _RETRYABLE_STATES or _sqlite_code(cause) in _BUSY_CODES
    )


def is_unavailable(error: BaseException) -> bool:
    """Tell whether the database could not serve now: away, overloaded, locked or out of time."""
    if isinstance(error, exc.TimeoutError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    cause = error.orig
    code = _sqlite_code(cause) if cause is not None else None
    if code is not None:
        return code in _UNAVAILABLE_CODES
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_UNAVAILABLE_CLASSES)
    # Without a code there was no answer from a server: the connection failed.
    return isinstance(error, exc.OperationalError | exc.InterfaceError)


def install_database_handlers(app: FastAPI) -> None:
    """Answer 503 with `Retry-After` while the database is away; other errors stay errors."""

    async def handle(request: Request, error: Exception) -> Response:
        if not is_unavailable(error):
            raise error
        return problem_response(
            Problem(
                503,
                detail="The database cannot serve this request now.",
                type="urn:slipway:problem:database-unavailable",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            ),
            request.scope,
        )

    app.add_exception_handler(exc.DBAPIError, handle)
    app.add_exception_handler(exc.TimeoutError, handle)
