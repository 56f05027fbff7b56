"""Compares the stock with its ledger and with the reservations, in one snapshot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database
from inventory.models import lines, movements, reservations, stock
from inventory.reservations import State


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A number of one item that does not add up."""

    item_id: str
    what: str
    stored: int
    expected: int

    def __str__(self) -> str:
        return f"{self.item_id}: {self.what} should be {self.expected}, but is {self.stored}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit looked at and found."""

    items: int
    movements: int
    mismatches: list[Mismatch]


async def audit(database: Database) -> Audit:
    """Check every item; writers may go on meanwhile.

    On hand and held must equal the sums of the movements, and held the lines of held reservations.
    """
    async with database.reading() as session:
        if database.dialect == "postgresql":
            # All statements must see one state; in SQLite they do.
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        found = await _mismatches(session)
        items = await session.scalar(select(func.count()).select_from(stock)) or 0
        moved = await session.scalar(select(func.count()).select_from(movements)) or 0
    return Audit(items, moved, found)


async def _mismatches(session: AsyncSession) -> list[Mismatch]:
    ledger = (
        select(
            movements.c.item_id,
            func.sum(movements.c.on_hand_change).label("on_hand"),
            func.sum(movements.c.held_change).label("held"),
        )
        .group_by(movements.c.item_id)
        .subquery()
    )
    promised = (
        select(lines.c.item_id, func.sum(lines.c.quantity).label("held"))
        .join(reservations, reservations.c.id == lines.c.reservation_id)
        .where(reservations.c.state == State.HELD.value)
        .group_by(lines.c.item_id)
        .subquery()
    )
    joined = stock.outerjoin(ledger, ledger.c.item_id == stock.c.item_id).outerjoin(
        promised, promised.c.item_id == stock.c.item_id
    )
    sums = {
        "on_hand_moved": func.coalesce(ledger.c.on_hand, 0),
        "held_moved": func.coalesce(ledger.c.held, 0),
        "held_promised": func.coalesce(promised.c.held, 0),
    }
    query = (
        select(stock, *(each.label(name) for name, each in sums.items()))
        .select_from(joined)
        .where(
            or_(
                stock.c.on_hand != sums["on_hand_moved"],
                stock.c.held != sums["held_moved"],
                stock.c.held != sums["held_promised"],
            )
        )
        .order_by(stock.c.item_id)
    )
    return [each for row in await session.execute(query) for each in _of(row)]


def _of(row: Row[Any]) -> Iterator[Mismatch]:
    for what, stored, expected in (
        ("on hand, by the ledger,", row.on_hand, row.on_hand_moved),
        ("held, by the ledger,", row.held, row.held_moved),
        ("held, by the reservations,", row.held, row.held_promised),
    ):
        # PostgreSQL sums BIGINT to NUMERIC.
        if stored != int(expected):
            yield Mismatch(row.item_id, what, stored, int(expected))
