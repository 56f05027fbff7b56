"""Orders in the database: every write is guarded by the version that it started from."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.events.publish import publish
from chassis.money import Money
from orders.domain import Line, Order, Reason, State, Status, states_of
from orders.models import orders
from orders.saga import OPEN, announcement

_c = orders.c

# Built once: putting a statement together costs more than running it.
_INSERT = insert(orders)
_SELECT = select(orders).where(_c.id == bindparam("wanted"))
_SELECT_OWN = _SELECT.where(_c.owner == bindparam("wanted_owner"))
_UPDATE = update(orders).where(
    _c.id == bindparam("wanted"), _c.version == bindparam("wanted_version")
)


class StaleOrderError(Exception):
    """Another process changed the order meanwhile; nothing was written."""


def _line_to_json(line: Line) -> dict[str, Any]:
    price = line.unit_price
    return {
        "item_id": line.item_id,
        "quantity": line.quantity,
        "name": line.name,
        "unit_price": None if price is None else price.model_dump(mode="json"),
    }


def _line_from_json(value: dict[str, Any]) -> Line:
    price = value["unit_price"]
    return Line(
        item_id=value["item_id"],
        quantity=value["quantity"],
        name=value["name"],
        unit_price=None if price is None else Money.model_validate(price),
    )


def _to_values(order: Order) -> dict[str, Any]:
    reason = order.reason
    return {
        "id": order.id,
        "owner": order.owner,
        "state": order.state.value,
        "lines": [_line_to_json(line) for line in order.lines],
        "total_amount": None if order.total is None else order.total.amount,
        "currency": None if order.total is None else order.total.currency,
        "reason": reason
        and {"code": reason.code, "detail": reason.detail, "extra": reason.extra or {}},
        "version": order.version,
        "hold": order.hold,
        "attempt": order.attempt,
        "next_attempt_at": order.next_attempt_at,
        "lease_owner": order.lease_owner,
        "lease_until": order.lease_until,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }


def _to_order(row: RowMapping) -> Order:
    total = None
    if row["total_amount"] is not None:
        total = Money(amount=row["total_amount"], currency=row["currency"])
    return Order(
        id=row["id"],
        owner=row["owner"],
        state=State(row["state"]),
        lines=tuple(_line_from_json(line) for line in row["lines"]),
        total=total,
        reason=None if row["reason"] is None else Reason(**row["reason"]),
        version=row["version"],
        hold=row["hold"],
        attempt=row["attempt"],
        next_attempt_at=row["next_attempt_at"],
        lease_owner=row["lease_owner"],
        lease_until=row["lease_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def add(session: AsyncSession, order: Order) -> None:
    """Write a new order."""
    await session.execute(_INSERT, _to_values(order))


async def load(session: AsyncSession, order_id: str, *, owner: str | None = None) -> Order | None:
    """Return an order, None when there is none (or it is not `owner`'s)."""
    wanted = {"wanted": order_id}
    if owner is None:
        found = await session.execute(_SELECT, wanted)
    else:
        found = await session.execute(_SELECT_OWN, {**wanted, "wanted_owner": owner})
    row = found.mappings().one_or_none()
    return None if row is None else _to_order(row)


async def save(
    session: AsyncSession, before: Order, after: Order, *, answered: bool = False
) -> Order:
    """Replace `before` by `after`, with the event about the change in the same transaction.

    `answered`: the buyer is being told of the change by the answer to their request.

    Raises:
        StaleOrderError: the stored order is no longer `before`.
    """
    after = replace(after, version=before.version + 1)
    values = _to_values(after)
    for fixed in ("id", "owner", "created_at"):
        del values[fixed]
    values |= {"wanted": before.id, "wanted_version": before.version}
    written = await session.execute(_UPDATE, values)
    if written.rowcount != 1:  # type: ignore[attr-defined]  # a CursorResult, for DML
        raise StaleOrderError(before.id)
    event = announcement(before, after, answered=answered)
    if event is not None:
        await publish(session, event, after.id, _event_data(after), now=after.updated_at)
    return after


def _event_data(order: Order) -> dict[str, Any]:
    reason = order.reason
    return {
        "order_id": order.id,
        "owner": order.owner,
        "status": order.status.value,
        "total": None if order.total is None else order.total.model_dump(mode="json"),
        "lines": [
            {"item_id": line.item_id, "name": line.name, "quantity": line.quantity}
            for line in order.lines
        ],
        # `lines` of a reason: the ones it is about, each with its `item_id`.
        "reason": reason
        and {
            "code": reason.code,
            "detail": reason.detail,
            "lines": (reason.extra or {}).get("lines", []),
        },
    }


def _is_due(now: datetime) -> ColumnElement[bool]:
    free = or_(_c.lease_until.is_(None), _c.lease_until <= now)
    return and_(_c.next_attempt_at <= now, free)


async def any_due(session: AsyncSession, now: datetime) -> bool:
    """Tell whether an order waits for a worker; costs a look at the index."""
    return (await session.execute(select(_c.id).where(_is_due(now)).limit(1))).first() is not None


async def lease_due(
    session: AsyncSession, *, owner: str, now: datetime, until: datetime, limit: int
) -> list[Order]:
    """Lease up to `limit` due orders to `owner`, the longest waiting first.

    PostgreSQL skips the rows that another worker is just taking; on SQLite the transaction
    holds the only write lock (BEGIN IMMEDIATE). The new version makes any late write of the
    former holder fail.
    """
    due = (
        select(_c.id)
        .where(_is_due(now))
        .order_by(_c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # evaluated once: a plain subquery may be run again and lock more rows
    )
    lease = (
        update(orders)
        .where(_c.id.in_(select(due.c.id)))
        .values(lease_owner=owner, lease_until=until, version=_c.version + 1)
        .returning(*orders.c)
    )
    rows = (await session.execute(lease)).mappings().all()
    return sorted((_to_order(row) for row in rows), key=lambda order: str(order.next_attempt_at))


async def page(
    session: AsyncSession,
    owner: str,
    *,
    status: Status | None,
    before: str | None,
    limit: int,
) -> Sequence[Order]:
    """Return up to `limit` orders of an owner, newest first, older than the id `before`."""
    query = select(orders).where(_c.owner == owner)
    if status is not None:
        query = query.where(_c.state.in_([state.value for state in states_of(status)]))
    if before is not None:
        query = query.where(_c.id < before)
    rows = await session.execute(query.order_by(_c.id.desc()).limit(limit))
    return [_to_order(row) for row in rows.mappings()]


async def backlog(session: AsyncSession) -> tuple[int, datetime | None]:
    """Return how many orders are not settled, and since when the oldest has been waiting."""
    waiting = _c.next_attempt_at.is_not(None) & _c.state.in_([state.value for state in OPEN])
    row = (
        await session.execute(select(func.count(), func.min(_c.created_at)).where(waiting))
    ).one()
    return row[0], row[1]
