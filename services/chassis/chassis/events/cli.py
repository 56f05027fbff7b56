"""`python -m chassis outbox <service> list|replay|redirect`: see to undelivered events."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Row, select, update
from sqlalchemy.exc import SQLAlchemyError

from chassis.database import Database
from chassis.events.tables import DEAD, DELIVERED, PENDING, outbox
from chassis.settings import EventSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list [--state STATE] [--limit N]`, `replay ID... | --all`, `redirect OLD NEW`."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="print events, one line each, oldest first")
    listing.add_argument("--state", choices=[PENDING, DELIVERED, DEAD], default=DEAD)
    listing.add_argument("--limit", type=int, default=100)
    replay = actions.add_parser("replay", help="let dead events be tried again")
    replay.add_argument("ids", nargs="*", metavar="ID")
    replay.add_argument("--all", action="store_true", help="every dead event")
    redirect = actions.add_parser("redirect", help="a subscriber moved: send its events after it")
    redirect.add_argument("old", metavar="OLD", help="the URL that `list` shows")
    redirect.add_argument("new", metavar="NEW", help="its URL in the settings")


async def run(arguments: argparse.Namespace, settings: EventSettings) -> int:
    """Do what `add_arguments` parsed; return the exit code (2: bad input, 1: the database)."""
    if arguments.action == "replay" and bool(arguments.ids) == arguments.all:
        print("outbox replay: give message ids, or --all", file=sys.stderr)
        return 2
    known = {url for urls in settings.subscribers.values() for url in urls}
    if arguments.action == "redirect" and arguments.new not in known:
        print("outbox redirect: NEW is no subscriber in the settings", file=sys.stderr)
        return 2
    database = Database(settings)
    try:
        if arguments.action == "redirect":
            print(f"redirected {await redirect(database, arguments.old, arguments.new)}")
            return 0
        if arguments.action == "list":
            for line in await listing(database, arguments.state, arguments.limit):
                print(line)
            return 0
        return await _replay(database, None if arguments.all else arguments.ids)
    except SQLAlchemyError as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        print(f"outbox {arguments.action}: {text}", file=sys.stderr)
        return 1
    finally:
        await database.close()


async def _replay(database: Database, ids: Sequence[str] | None) -> int:
    found = await replay(database, ids)
    print(f"replayed {len(found)}")
    missing = [each for each in ids or () if each not in found]
    for each in missing:
        print(f"outbox replay: no dead event {each}", file=sys.stderr)
    return 2 if missing else 0


async def listing(database: Database, state: str, limit: int) -> list[str]:
    """Return a line per message and subscriber: id, state, type, tries, subscriber, error."""
    async with database.reading() as session:
        rows = await session.execute(
            select(outbox).where(outbox.c.state == state).order_by(outbox.c.seq).limit(limit)
        )
        return [_line(row) for row in rows]


def _line(row: Row[tuple[object, ...]]) -> str:
    fields = [
        row.id,
        row.state,
        row.created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        row.type,
        row.subject,
        f"attempts={row.attempts}",
        row.subscriber,
        row.last_error or "-",
    ]
    return "  ".join(" ".join(str(field).split()) for field in fields)


async def replay(database: Database, ids: Sequence[str] | None) -> set[str]:
    """Make dead messages (all, for None) pending again, due now; return the ids found."""
    statement = (
        update(outbox)
        .where(outbox.c.state == DEAD)
        .values(
            state=PENDING, attempts=0, available_at=datetime.now(UTC), lease=None, finished_at=None
        )
        .returning(outbox.c.id)
    )
    if ids is not None:
        statement = statement.where(outbox.c.id.in_(ids))
    async with database.session() as session:
        return set((await session.scalars(statement)).all())


async def redirect(database: Database, old: str, new: str) -> int:
    """Give what the URL `old` has not had yet to `new`, dead messages too; return how many.

    A row keeps the URL that its subscriber had when it was published.
    """
    statement = (
        update(outbox)
        .where(outbox.c.subscriber == old, outbox.c.state != DELIVERED)
        .values(subscriber=new)
        .returning(outbox.c.seq)
    )
    async with database.session() as session:
        return len((await session.scalars(statement)).all())
