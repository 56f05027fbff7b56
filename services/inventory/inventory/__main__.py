"""Commands of the inventory: `python -m inventory seed` and `python -m inventory audit`."""

import argparse
import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from chassis.clock import SystemClock
from chassis.database import Database, run_transaction
from chassis.migrations import MigrationError, needs_migration
from chassis.settings import SettingsError, load_settings
from inventory.audit import audit
from inventory.seed import seed
from inventory.settings import Settings


class CommandError(Exception):
    """A command cannot run; the text is one line for the user."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 the audit found a mismatch, 2 bad input or setting."""
    parser = argparse.ArgumentParser(prog="python -m inventory", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("seed", help="stock the example catalogue; what is stocked stays as it is")
    commands.add_parser("audit", help="compare the stock with the ledger; exit 1 on a mismatch")
    command = parser.parse_args(arguments).command
    try:
        return asyncio.run(_run(command, load_settings(Settings)))
    except (CommandError, MigrationError, SettingsError) as error:
        print(f"inventory {command}: {error}", file=sys.stderr)
    except SQLAlchemyError as error:
        reason = type(error).__name__
        print(f"inventory {command}: the database failed: {reason}", file=sys.stderr)
    return 2


async def _run(command: str, settings: Settings) -> int:
    if await needs_migration("inventory", settings):
        raise CommandError(
            "the database is not migrated; run: python -m chassis migrate inventory "
            "(on the local platform: make migrate, and make run SERVICE=inventory)"
        )
    database = Database(settings)
    try:
        return await (_audit(database) if command == "audit" else _seed(database))
    finally:
        await database.close()


async def _seed(database: Database) -> int:
    now = SystemClock().now()
    added = await run_transaction(database, lambda session: seed(session, now))
    print(f"inventory: {added} items stocked")
    return 0


async def _audit(database: Database) -> int:
    result = await audit(database)
    for mismatch in result.mismatches:
        print(mismatch)
    verdict = f"mismatches: {len(result.mismatches)}" if result.mismatches else "all add up"
    print(f"inventory: {result.items} items, {result.movements} movements: {verdict}")
    return 1 if result.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
