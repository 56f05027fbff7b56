"""aiosqlite's connection, made safe to close while it is being closed.

A cancelled statement lets SQLAlchemy close its connection. A second cancellation (anyio repeats
it at every await) makes it stop the connection by force while that close is under way. aiosqlite
ends its thread at the first stop and never answers what comes after: the close would wait for
ever, and with it whoever waits for the task. Here all of them share the one answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from typing import Any

import aiosqlite

_CHUNK = 64


class Connection(aiosqlite.Connection):
    """A connection whose thread is told once to end."""

    _stopping: asyncio.Future[Any] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        """Close after what is queued, and end the thread; return the future of that end."""
        if self._stopping is None:
            self._stopping = super().stop()
        return self._stopping

    async def close(self) -> None:
        """Stop, and wait for it."""
        stopping = self.stop()
        if stopping is not None:
            # Who stops waiting must not cancel the answer for the others.
            await asyncio.shield(stopping)


def connect(database: str, **options: Any) -> Connection:
    """Return a connection to be awaited; its thread does not keep the process alive."""
    connection = Connection(partial(sqlite3.connect, database, **options), _CHUNK)
    connection._thread.daemon = True  # noqa: SLF001  (as SQLAlchemy does for its own)
    return connection
