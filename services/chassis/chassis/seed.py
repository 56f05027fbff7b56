"""Example data of a service, for a first look: `python -m chassis seed <service>`.

A service that has some keeps it in `<package>/seed.py`, as `async def seed(session, now) -> int`:
it adds what is missing, leaves what exists, and returns how many rows it added. All of it is one
transaction, so that a seeding that fails leaves nothing behind and may be repeated.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from chassis.clock import Clock, SystemClock
from chassis.database import Database, run_transaction
from chassis.migrations import needs_migration
from chassis.settings import DatabaseSettings


class SeedError(Exception):
    """The example data cannot be added. Its text is one line."""


async def seed(service: str, settings: DatabaseSettings, clock: Clock | None = None) -> int:
    """Add the example data of `service`, if it has some; return how many examples are new.

    Raises:
        SeedError: the database is not migrated, or it refuses.
        MigrationError: the database cannot be read.
    """
    if importlib.util.find_spec(f"{service}.seed") is None:
        return 0
    if await needs_migration(service, settings):
        raise SeedError(
            f"{service}: the database is not migrated; run python -m chassis migrate {service}"
        )
    module: Any = importlib.import_module(f"{service}.seed")
    now = (clock or SystemClock()).now()
    database = Database(settings)
    try:
        added: int = await run_transaction(database, lambda session: module.seed(session, now))
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        raise SeedError(f"{service}: the example data: {reason}") from error
    finally:
        await database.close()
    return added
