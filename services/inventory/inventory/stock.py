"""Counts of units: every change goes through `move`, which writes count and ledger together.

Functions work in the caller's transaction and take several items in the order of their ids, so
that two transactions cannot wait for each other in a circle.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import UtcDateTime
from inventory.models import movements, stock


class Kind(StrEnum):
    """Why units moved."""

    SET = "set"
    RESTOCK = "restock"
    HOLD = "hold"
    CONFIRM = "confirm"
    RELEASE = "release"
    EXPIRE = "expire"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Cause:
    """Who moved units, when and for which reservation. `actor` is None for the service itself."""

    at: datetime
    actor: str | None = None
    reservation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """The stock of one item, in units."""

    item_id: str
    on_hand: int
    held: int
    version: int
    updated_at: datetime

    @property
    def available(self) -> int:
        """Units that can still be reserved."""
        return self.on_hand - self.held


@dataclass(frozen=True, slots=True)
class Shortage:
    """An item of which more was asked for than there is."""

    item_id: str
    requested: int
    available: int


class StockHeldError(Exception):
    """The new count would be less than what is held for reservations."""

    def __init__(self, level: Level) -> None:
        super().__init__(f"{level.held} units of {level.item_id} are held by reservations")
        self.level = level


class StaleError(Exception):
    """The stock changed since the caller read it."""


async def get(session: AsyncSession, item_id: str, *, lock: bool = False) -> Level | None:
    """Return the stock of an item, or None if it was never stocked."""
    query = select(stock).where(stock.c.item_id == item_id)
    row = (await session.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else Level(*row)


async def available(session: AsyncSession, item_ids: Iterable[str]) -> dict[str, int]:
    """Return the units that can be reserved of each item; unknown items are absent."""
    count = (stock.c.on_hand - stock.c.held).label("available")
    query = select(stock.c.item_id, count).where(stock.c.item_id.in_(list(item_ids)))
    return {row.item_id: row.available for row in await session.execute(query)}


async def shortages(session: AsyncSession, wanted: Mapping[str, int]) -> list[Shortage]:
    """Return what is short of `wanted`, sorted by item."""
    there = await available(session, wanted)
    return [
        Shortage(item_id, quantity, there.get(item_id, 0))
        for item_id, quantity in sorted(wanted.items())
        if there.get(item_id, 0) < quantity
    ]


# Built once: putting the statement together costs more than running it.
_ON_HAND = stock.c.on_hand + bindparam("on_hand_by", type_=BigInteger)
_HELD = stock.c.held + bindparam("held_by", type_=BigInteger)
_MOVE = (
    update(stock)
    .where(stock.c.item_id == bindparam("item"), _ON_HAND >= _HELD, _HELD >= 0)
    .values(
        on_hand=_ON_HAND,
        held=_HELD,
        version=stock.c.version + 1,
        updated_at=bindparam("at", type_=UtcDateTime),
    )
    .returning(stock.c.item_id)
)


async def move(
    session: AsyncSession,
    kind: Kind,
    changes: Mapping[str, tuple[int, int]],
    cause: Cause,
) -> list[str]:
    """Add `(on_hand, held)` changes to items, as long as no item would get less available than 0.

    Returns:
        The items that could not be changed, because they are unknown or short. If there is one,
        the caller must roll back.
    """
    refused = []
    for item_id, (on_hand, held) in sorted(changes.items()):
        change = {"item": item_id, "on_hand_by": on_hand, "held_by": held, "at": cause.at}
        changed = await session.execute(_MOVE, change)
        if changed.first() is None:
            refused.append(item_id)
    if not refused:
        await _record(session, kind, changes, cause)
    return refused


async def restock(session: AsyncSession, item_id: str, quantity: int, cause: Cause) -> Level:
    """Add units to an item; one that was never stocked starts at zero."""
    await _ensure(session, item_id, cause.at)
    await move(session, Kind.RESTOCK, {item_id: (quantity, 0)}, cause)
    return await _known(session, item_id)


async def set_level(
    session: AsyncSession,
    item_id: str,
    on_hand: int,
    cause: Cause,
    *,
    version: int | None = None,
) -> tuple[Level, bool]:
    """Set the count of an item, as after counting the shelf. The same count changes nothing.

    Returns:
        The stock, and whether this is the first time that the item has one.

    Raises:
        StockHeldError: more units than that are held for reservations.
        StaleError: `version` is given and is not the current one.
    """
    created = await _ensure(session, item_id, cause.at)
    # The difference is only right as long as nobody else moves this item.
    level = await get(session, item_id, lock=True)
    assert level is not None
    if version is not None and (created or version != level.version):
        raise StaleError(item_id)
    if on_hand < level.held:
        raise StockHeldError(level)
    if on_hand == level.on_hand:
        return level, created
    await move(session, Kind.SET, {item_id: (on_hand - level.on_hand, 0)}, cause)
    return await _known(session, item_id), created


async def _known(session: AsyncSession, item_id: str) -> Level:
    level = await get(session, item_id)
    assert level is not None
    return level


async def _ensure(session: AsyncSession, item_id: str, now: datetime) -> bool:
    """Make sure that an item has a row; say whether it is new."""
    row = {"item_id": item_id, "on_hand": 0, "held": 0, "version": 1, "updated_at": now}
    return await insert_absent(session, stock, row)


async def insert_absent(session: AsyncSession, table: Any, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its primary key exists; say whether it was inserted.

    A concurrent insert of the same key is waited for, so that afterwards the row is there.
    """
    statement = _insert_absent(table, session.get_bind().dialect.name)
    return (await session.execute(statement, dict(row))).first() is not None


@cache  # putting the statement together costs more than running it
def _insert_absent(table: Any, dialect: str) -> Any:
    construct = postgresql_insert if dialect == "postgresql" else sqlite_insert
    key = list(table.primary_key)
    return construct(table).on_conflict_do_nothing(index_elements=key).returning(*key)


async def _record(
    session: AsyncSession, kind: Kind, changes: Mapping[str, tuple[int, int]], cause: Cause
) -> None:
    rows = [
        {
            "item_id": item_id,
            "kind": kind.value,
            "on_hand_change": on_hand,
            "held_change": held,
            "reservation_id": cause.reservation_id,
            "actor": cause.actor and cause.actor[:255],
            "at": cause.at,
        }
        for item_id, (on_hand, held) in sorted(changes.items())
    ]
    await session.execute(insert(movements), rows)
