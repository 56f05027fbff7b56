"""Commands of trainers: `python -m trainers rebuild|lag`."""

import argparse
import asyncio
import sys
import time

from sqlalchemy.exc import SQLAlchemyError

from chassis.clock import SystemClock
from chassis.database import Database
from chassis.migrations import MigrationError, needs_migration
from chassis.settings import SettingsError, load_settings
from trainers import progress
from trainers.events import UnknownEventError
from trainers.projector import rebuild
from trainers.settings import Settings


class CommandError(Exception):
    """A command cannot run; the text is one line for the user."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 2 bad setting, or a database that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rebuild", help="make the read model anew from all events")
    commands.add_parser("lag", help="say how far the read model is behind the log")
    command = parser.parse_args(arguments).command
    try:
        said = asyncio.run(_run(command, load_settings(Settings)))
    except (CommandError, MigrationError, SettingsError, UnknownEventError) as error:
        print(f"trainers {command}: {error}", file=sys.stderr)
        return 2
    except SQLAlchemyError as error:
        reason = type(error).__name__
        print(f"trainers {command}: the database failed: {reason}", file=sys.stderr)
        return 2
    print(said)
    return 0


async def _run(command: str, settings: Settings) -> str:
    if await needs_migration("trainers", settings):
        raise CommandError(
            "the database is not migrated; run: python -m chassis migrate trainers "
            "(on the local platform: make migrate, and make run SERVICE=trainers-queries)"
        )
    database = Database(settings)
    try:
        return await (_rebuild if command == "rebuild" else _lag)(database, settings)
    finally:
        await database.close()


async def _rebuild(database: Database, settings: Settings) -> str:
    began = time.monotonic()
    async with database.session() as session:
        count = await rebuild(session, settings.projector_batch)
    return f"trainers: {count} events projected anew in {time.monotonic() - began:.1f} s"


async def _lag(database: Database, _: Settings) -> str:
    async with database.reading() as session:
        found = await progress.read(session)
    seconds = found.seconds(SystemClock().now())
    return (
        f"trainers: version {found.position} of {found.head}, "
        f"{found.events} events and {seconds:.1f} s behind"
    )


if __name__ == "__main__":
    sys.exit(main())
