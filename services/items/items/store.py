"""Reads and writes items in the caller's transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.ids import new_id
from chassis.money import Money
from items.domain import Content, Item, Status
from items.models import items, prices, tags, words


class ItemExistsError(Exception):
    """The chosen id is taken."""


class SkuTakenError(Exception):
    """Another item has this SKU."""


class StaleError(Exception):
    """The item was changed or deleted by somebody else since it was read."""


# Tags contain no spaces. A scalar subquery keeps the read of an item at one statement.
_TAGS = (
    select(func.aggregate_strings(tags.c.tag, " "))
    .where(tags.c.item_id == items.c.id)
    .scalar_subquery()
    .label("tags")
)
_READ = (
    select(*items.c, _TAGS, prices.c.amount, prices.c.currency)
    .join(prices, prices.c.item_id == items.c.id)
    .order_by(items.c.id, prices.c.rank)
)


async def get(session: AsyncSession, item_id: str) -> Item | None:
    """Return one item, or None; a single statement on indices."""
    rows = (await session.execute(_READ.where(items.c.id == item_id))).all()
    return _item(rows) if rows else None


async def get_many(session: AsyncSession, ids: Collection[str]) -> list[Item]:
    """Return the items that exist, in the order of `ids`."""
    if not ids:
        return []
    groups: dict[str, list[Any]] = {}
    for row in (await session.execute(_READ.where(items.c.id.in_(ids)))).all():
        groups.setdefault(row.id, []).append(row)
    return [_item(groups[item_id]) for item_id in dict.fromkeys(ids) if item_id in groups]


async def create(session: AsyncSession, item_id: str, content: Content, now: datetime) -> Item:
    """Add an item.

    Raises:
        ItemExistsError: the id is taken.
        SkuTakenError: another item has the SKU.
    """
    item = Item(item_id, new_id(), content, created_at=now, updated_at=now)
    row = {"id": item_id, "created_at": now, **_row(item)}
    try:
        async with session.begin_nested():
            await session.execute(insert(items).values(row))
    except IntegrityError:
        if await get(session, item_id) is not None:
            raise ItemExistsError(item_id) from None
        raise SkuTakenError(content.sku) from None
    await _insert_details(session, item)
    return item


async def replace(session: AsyncSession, old: Item, content: Content, now: datetime) -> Item:
    """Write new content over `old`; the same content changes nothing, not even the revision.

    Raises:
        StaleError: `old` is no longer what is stored.
        SkuTakenError: another item has the SKU.
    """
    if content == old.content:
        return old
    item = Item(old.id, new_id(), content, created_at=old.created_at, updated_at=now)
    try:
        async with session.begin_nested():
            written = await session.execute(
                update(items)
                .where(items.c.id == old.id, items.c.revision == old.revision)
                .values(_row(item))
                .returning(items.c.id)
            )
            if written.first() is None:
                raise StaleError(old.id)
    except IntegrityError:
        raise SkuTakenError(content.sku) from None
    await _delete_details(session, old.id)
    await _insert_details(session, item)
    return item


async def delete(session: AsyncSession, old: Item) -> None:
    """Remove `old`.

    Raises:
        StaleError: `old` is no longer what is stored.
    """
    # The lock of the row comes first, so that two writers meet there and not at the details.
    locked = await session.execute(
        select(items.c.id)
        .where(items.c.id == old.id, items.c.revision == old.revision)
        .with_for_update()
    )
    if locked.first() is None:
        raise StaleError(old.id)
    await _delete_details(session, old.id)
    await session.execute(sql_delete(items).where(items.c.id == old.id))


def _item(rows: Sequence[Any]) -> Item:
    """Build an item from its rows, one for each price."""
    row = rows[0]
    content = Content(
        sku=row.sku,
        name=row.name,
        description=row.description,
        category=row.category,
        tags=tuple(sorted(row.tags.split(" "))) if row.tags else (),
        status=Status(row.status),
        prices=tuple(Money(amount=price.amount, currency=price.currency) for price in rows),
    )
    return Item(row.id, row.revision, content, row.created_at, row.updated_at)


def _row(item: Item) -> dict[str, Any]:
    content = item.content
    return {
        "sku": content.sku,
        "name": content.name,
        "description": content.description,
        "category": content.category,
        "status": content.status.value,
        "revision": item.revision,
        "updated_at": item.updated_at,
    }


async def _insert_details(session: AsyncSession, item: Item) -> None:
    content = item.content
    await session.execute(
        insert(prices),
        [
            {"item_id": item.id, "currency": price.currency, "amount": price.amount, "rank": rank}
            for rank, price in enumerate(content.prices)
        ],
    )
    if content.tags:
        await session.execute(
            insert(tags), [{"item_id": item.id, "tag": tag} for tag in content.tags]
        )
    await session.execute(
        insert(words),
        [{"item_id": item.id, "word": word} for word in sorted(content.words())],
    )


async def _delete_details(session: AsyncSession, item_id: str) -> None:
    for table in (prices, tags, words):
        await session.execute(sql_delete(table).where(table.c.item_id == item_id))
