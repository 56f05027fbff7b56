"""Commands of the catalogue: `python -m items seed`."""

import argparse
import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from chassis.clock import SystemClock
from chassis.database import Database, run_transaction
from chassis.migrations import MigrationError, needs_migration
from chassis.settings import SettingsError, load_settings
from items.seed import seed
from items.settings import Settings


class CommandError(Exception):
    """A command cannot run; the text is one line for the user."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 2 bad input or setting."""
    parser = argparse.ArgumentParser(prog="python -m items", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("seed", help="add the example catalogue; what exists stays as it is")
    command = parser.parse_args(arguments).command
    try:
        added = asyncio.run(_seed(load_settings(Settings)))
    except (CommandError, MigrationError, SettingsError) as error:
        print(f"items {command}: {error}", file=sys.stderr)
        return 2
    except SQLAlchemyError as error:
        reason = type(error).__name__
        print(f"items {command}: the database failed: {reason}", file=sys.stderr)
        return 2
    print(f"items: {added} items added")
    return 0


async def _seed(settings: Settings) -> int:
    if await needs_migration("items", settings):
        raise CommandError(
            "the database is not migrated; run: python -m chassis migrate items "
            "(on the local platform: make migrate, and make run SERVICE=items)"
        )
    database = Database(settings)
    try:
        now = SystemClock().now()
        return await run_transaction(database, lambda session: seed(session, now))
    finally:
        await database.close()


if __name__ == "__main__":
    sys.exit(main())
