"""FastAPI dependencies for sessions."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from chassis.database.session import Database


def get_database(connection: HTTPConnection) -> Database:
    """Return the database of the application that serves `connection`."""
    database: Database = connection.app.state.runtime.database
    return database


async def _write_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with get_database(connection).session() as session:
        yield session


async def _read_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with get_database(connection).reading() as session:
        yield session


# Scope "function" ends the dependency, and so commits, before the response is sent: a commit
# that fails becomes an error response, and who has a 2xx can read what was written.
# An exception rolls back; a returned error response does not.
SessionDep = Annotated[AsyncSession, Depends(_write_session, scope="function")]
ReadSessionDep = Annotated[AsyncSession, Depends(_read_session, scope="function")]
