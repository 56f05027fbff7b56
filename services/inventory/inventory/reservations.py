"""Reservations: units promised to an order, and the states that a promise goes through.

    held -> confirmed -> returned
    held -> released
    held -> expired

The client chooses the id, so every step may be repeated after a lost answer. Releasing an unknown
id leaves a released reservation without lines: a reserve request that arrives late, behind its own
compensation, finds it and holds nothing.

Functions work in the caller's transaction. They lock the reservation first and its items after it,
in order.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from inventory import stock
from inventory.models import lines, reservations
from inventory.stock import Cause, Kind, Shortage


class State(StrEnum):
    """Where a reservation stands."""

    HELD = "held"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A promise of units. `lines` maps an item to its units."""

    id: str
    state: State
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    lines: Mapping[str, int]

    def is_due(self, now: datetime) -> bool:
        """Whether the promise ran out, even if nobody wrote that down yet."""
        return self.state is State.HELD and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class Step:
    """What a request did: the reservation as it is now, and whether this request changed it."""

    reservation: Reservation
    changed: bool


class UnknownReservationError(Exception):
    """There is no reservation with this id."""


class LinesDifferError(Exception):
    """The id belongs to a reservation of other lines."""


class InsufficientStockError(Exception):
    """Not all lines can be held, so none is."""

    def __init__(self, shortages: list[Shortage]) -> None:
        super().__init__("insufficient stock")
        self.shortages = shortages


async def get(session: AsyncSession, reservation_id: str, now: datetime) -> Reservation:
    """Return a reservation as it stands at `now`.

    Raises:
        UnknownReservationError: there is none.
    """
    found = await _load(session, reservation_id)
    if found is None:
        raise UnknownReservationError(reservation_id)
    return replace(found, state=State.EXPIRED) if found.is_due(now) else found


async def reserve(
    session: AsyncSession,
    reservation_id: str,
    wanted: Mapping[str, int],
    expires_at: datetime,
    cause: Cause,
    *,
    confirm: bool = False,
) -> Step:
    """Hold all of `wanted`, or nothing; with `confirm` take the units out of the stock at once.

    Returns:
        The reservation: new and held (confirmed), or the one that already has this id, in any
        state; with `confirm` one that was held is confirmed now.

    Raises:
        InsufficientStockError: the transaction must be rolled back.
        LinesDifferError: the id is in use for something else.
    """
    state = State.CONFIRMED if confirm else State.HELD
    row = {
        "id": reservation_id,
        "state": state.value,
        "expires_at": expires_at,
        "created_at": cause.at,
        "updated_at": cause.at,
    }
    if not await stock.insert_absent(session, reservations, row):
        step = await _again(session, reservation_id, wanted, cause)
        if confirm and step.reservation.state is State.HELD:
            return await _move(session, step.reservation, State.CONFIRMED, cause)
        return step
    kind, (on_hand, held) = (Kind.CONFIRM, (-1, 0)) if confirm else (Kind.HOLD, (0, 1))
    changes = {
        item_id: (on_hand * quantity, held * quantity) for item_id, quantity in wanted.items()
    }
    cause = replace(cause, reservation_id=reservation_id)
    refused = await stock.move(session, kind, changes, cause)
    if refused:
        raise InsufficientStockError(await _shortages(session, wanted, refused))
    await session.execute(
        insert(lines),
        [
            {"reservation_id": reservation_id, "item_id": item_id, "quantity": quantity}
            for item_id, quantity in sorted(wanted.items())
        ],
    )
    made = Reservation(reservation_id, state, expires_at, cause.at, cause.at, dict(wanted))
    return Step(made, changed=True)


async def confirm(session: AsyncSession, reservation_id: str, cause: Cause) -> Step:
    """Take held units out of the stock. Repeating it changes nothing.

    Returns:
        The reservation: confirmed, or in the state that forbids it. If it has run out, the
        transaction now holds its expiry and must be committed.

    Raises:
        UnknownReservationError: there is none.
    """
    found = await _load(session, reservation_id, lock=True)
    if found is None:
        raise UnknownReservationError(reservation_id)
    if found.is_due(cause.at):
        return await _move(session, found, State.EXPIRED, cause)
    if found.state is not State.HELD:
        return Step(found, changed=False)
    return await _move(session, found, State.CONFIRMED, cause)


async def release(session: AsyncSession, reservation_id: str, cause: Cause) -> Step:
    """Give units back: held ones become available, confirmed ones return to the stock.

    Repeating it changes nothing, and neither does releasing what expired. An unknown id is
    remembered as released.
    """
    row = {
        "id": reservation_id,
        "state": State.RELEASED.value,
        "expires_at": cause.at,
        "created_at": cause.at,
        "updated_at": cause.at,
    }
    await stock.insert_absent(session, reservations, row)
    found = await _load(session, reservation_id, lock=True)
    assert found is not None
    match found.state:
        case State.HELD:
            return await _move(session, found, State.RELEASED, cause)
        case State.CONFIRMED:
            return await _move(session, found, State.RETURNED, cause)
        case _:
            return Step(found, changed=False)


async def expire(session: AsyncSession, reservation_id: str, now: datetime) -> bool:
    """Give back the units of a reservation that ran out; say whether this call did it.

    One that another transaction is working on is left alone.
    """
    found = await _load(session, reservation_id, lock=True, skip_locked=True)
    if found is None or not found.is_due(now):
        return False
    await _move(session, found, State.EXPIRED, Cause(at=now))
    return True


async def due(
    session: AsyncSession, now: datetime, *, limit: int, item_ids: Collection[str] | None = None
) -> list[str]:
    """Return ids of held reservations that ran out, oldest first, optionally of some items only."""
    query = (
        select(reservations.c.id)
        .where(reservations.c.state == State.HELD.value, reservations.c.expires_at <= now)
        .order_by(reservations.c.expires_at)
        .limit(limit)
    )
    if item_ids is not None:
        holding = select(lines.c.reservation_id).where(lines.c.item_id.in_(item_ids))
        query = query.where(reservations.c.id.in_(holding))
    return list((await session.scalars(query)).all())


async def _again(
    session: AsyncSession, reservation_id: str, wanted: Mapping[str, int], cause: Cause
) -> Step:
    found = await _load(session, reservation_id, lock=True)
    assert found is not None
    # A tombstone has no lines: the release came first, whatever was to be reserved.
    if found.lines and found.lines != wanted:
        raise LinesDifferError(reservation_id)
    if found.is_due(cause.at):
        return await _move(session, found, State.EXPIRED, cause)
    return Step(found, changed=False)


async def _load(
    session: AsyncSession, reservation_id: str, *, lock: bool = False, skip_locked: bool = False
) -> Reservation | None:
    query = select(
        reservations.c.state,
        reservations.c.expires_at,
        reservations.c.created_at,
        reservations.c.updated_at,
    ).where(reservations.c.id == reservation_id)
    if lock:
        query = query.with_for_update(skip_locked=skip_locked)
    row = (await session.execute(query)).first()
    if row is None:
        return None
    rows = await session.execute(
        select(lines.c.item_id, lines.c.quantity).where(lines.c.reservation_id == reservation_id)
    )
    held = {row.item_id: row.quantity for row in rows}
    return Reservation(
        reservation_id, State(row.state), row.expires_at, row.created_at, row.updated_at, held
    )


# What a step does to (on_hand, held) for each unit of a line.
_STEPS = {
    State.CONFIRMED: (Kind.CONFIRM, (-1, -1)),
    State.RELEASED: (Kind.RELEASE, (0, -1)),
    State.EXPIRED: (Kind.EXPIRE, (0, -1)),
    State.RETURNED: (Kind.RETURN, (1, 0)),
}


async def _move(
    session: AsyncSession, reservation: Reservation, state: State, cause: Cause
) -> Step:
    """Write a state and what it does to the stock. The reservation must be locked."""
    kind, (on_hand, held) = _STEPS[state]
    changes = {
        item_id: (on_hand * quantity, held * quantity)
        for item_id, quantity in reservation.lines.items()
    }
    await session.execute(
        update(reservations)
        .where(reservations.c.id == reservation.id)
        .values(state=state.value, updated_at=cause.at)
    )
    cause = replace(cause, reservation_id=reservation.id)
    refused = await stock.move(session, kind, changes, cause)
    if refused:
        raise RuntimeError(f"reservation {reservation.id}: the stock of {refused} does not add up")
    return Step(replace(reservation, state=state, updated_at=cause.at), changed=True)


async def _shortages(
    session: AsyncSession, wanted: Mapping[str, int], refused: Collection[str]
) -> list[Shortage]:
    """Say what was short. Stock that came back in the meantime does not make a refusal untrue."""
    there = await stock.available(session, refused)
    return [
        Shortage(item_id, wanted[item_id], min(there.get(item_id, 0), wanted[item_id] - 1))
        for item_id in refused
    ]
