"""Finds items: filters, orders and keyset pages, all of them on indices."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, false, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from items.domain import Status, words_of
from items.models import items, prices, tags, words

_LAST_CHARACTER = "\U0010ffff"


class Sort(StrEnum):
    """The orders of a list; a minus sign means descending."""

    CREATED = "created_at"
    CREATED_DESC = "-created_at"
    NAME = "name"
    NAME_DESC = "-name"
    PRICE = "price"
    PRICE_DESC = "-price"

    @property
    def descending(self) -> bool:
        """Whether the largest comes first."""
        return self.value.startswith("-")

    @property
    def by_price(self) -> bool:
        """Whether this order compares prices."""
        return self in {Sort.PRICE, Sort.PRICE_DESC}


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to.

    Prices in different currencies cannot be compared, so the bounds and the price orders need
    `currency`. `base_only` looks at base prices only (v1).
    """

    text: str | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()
    status: Status | None = None
    currency: str | None = None
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    base_only: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the value of the sort column and the id of its last item."""

    value: datetime | str | Decimal
    item_id: str


async def find(
    session: AsyncSession, filters: Filters, sort: Sort, after: Position | None, limit: int
) -> tuple[list[str], Position | None]:
    """Return the ids of one page, and where it ended if there is more.

    The page starts behind the position itself and not at a count of rows, so inserts and deletes
    elsewhere neither repeat nor skip an item.
    """
    column, item_id = sort_key(sort)
    query = _filtered(select(item_id, column.label("key")), filters)
    keyset = tuple_(column, item_id)
    if after is not None:
        bound = tuple_(after.value, after.item_id, types=[column.type, item_id.type])
        query = query.where(keyset < bound if sort.descending else keyset > bound)
    order = (column.desc(), item_id.desc()) if sort.descending else (column, item_id)
    rows = (await session.execute(query.order_by(*order).limit(limit + 1))).all()
    page = rows[:limit]
    more = Position(page[-1].key, page[-1].id) if len(rows) > limit else None
    return [row.id for row in page], more


def sort_key(sort: Sort) -> tuple[ColumnElement[Any], ColumnElement[str]]:
    """Return the columns that a list is ordered by; the id breaks ties."""
    return _column(sort), items.c.id


def _column(sort: Sort) -> ColumnElement[Any]:
    match sort:
        case Sort.NAME | Sort.NAME_DESC:
            return items.c.name
        case Sort.PRICE | Sort.PRICE_DESC:
            return prices.c.amount
        case Sort.CREATED | Sort.CREATED_DESC:
            return items.c.created_at


def _filtered(query: Select[Any], filters: Filters) -> Select[Any]:
    if filters.currency is not None:
        query = query.join(prices, prices.c.item_id == items.c.id).where(*_price(filters))
    if filters.category is not None:
        query = query.where(items.c.category == filters.category)
    if filters.status is not None:
        query = query.where(items.c.status == filters.status.value)
    for tag in filters.tags:
        query = query.where(items.c.id.in_(select(tags.c.item_id).where(tags.c.tag == tag)))
    wanted = set(words_of(filters.text or ""))
    if filters.text is not None and not wanted:
        return query.where(false())
    for word in sorted(wanted):
        matching = select(words.c.item_id).where(
            words.c.word >= word, words.c.word <= word + _LAST_CHARACTER
        )
        query = query.where(items.c.id.in_(matching))
    return query


def _price(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [prices.c.currency == filters.currency]
    if filters.base_only:
        conditions.append(prices.c.rank == 0)
    if filters.price_min is not None:
        conditions.append(prices.c.amount >= filters.price_min)
    if filters.price_max is not None:
        conditions.append(prices.c.amount <= filters.price_max)
    return conditions
