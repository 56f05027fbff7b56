"""Routes of reservations. They are for services: the gateway does not let anybody in."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response

from chassis.database import ReadSessionDep, run_transaction
from chassis.problems import Problem, problems
from chassis.runtime import Runtime, RuntimeDep
from chassis.security import Principal, requires
from inventory import reservations
from inventory.expiry import expire_due
from inventory.metrics import metrics_of
from inventory.reservations import (
    InsufficientStockError,
    LinesDifferError,
    State,
    Step,
    UnknownReservationError,
)
from inventory.schemas import Reservation, ReservationId, ReservationRequest, Shortage, merged
from inventory.settings import Settings
from inventory.stock import Cause

MAY_RESERVE = requires("inventory:reserve")
Reserver = Annotated[Principal, MAY_RESERVE]
ReservationPath = Annotated[ReservationId, Path()]

router = APIRouter(prefix="/reservations", tags=["reservations"])


@router.post(
    "",
    summary="Hold units for an order",
    status_code=201,
    responses={
        200: {"model": Reservation, "description": "It was reserved before, with the same lines."},
        **problems(401, 403, 409, 422),
    },
)
async def reserve(
    body: ReservationRequest, runtime: RuntimeDep, caller: Reserver, response: Response
) -> Reservation:
    """Hold all lines or none, until the reservation is confirmed, released or expires.

    The client chooses the id, so the request may be repeated: the same lines answer 200, other
    lines 409. An id that was released or has expired holds nothing any more: 409. Too little stock
    is 409 `urn:slipway:problem:insufficient-stock` with the short `lines`; the same id may be used
    for another attempt. With `confirm` the units are taken at once, also from an earlier hold.
    """
    wanted = merged(body.lines)
    try:
        step = await _reserve(runtime, body, wanted, caller.subject)
    except LinesDifferError:
        raise Problem(
            409,
            "The id is in use",
            detail=f"Reservation {body.id} exists with other lines.",
            type="urn:slipway:problem:reservation-conflict",
        ) from None
    except InsufficientStockError as error:
        metrics_of(runtime).reservations.labels("insufficient").inc()
        raise Problem(
            409,
            "Insufficient stock",
            detail="Not all lines can be held, so none is.",
            type="urn:slipway:problem:insufficient-stock",
            lines=[Shortage.of(short).model_dump() for short in error.shortages],
        ) from None
    shown = _settled(runtime, step, {State.HELD, State.CONFIRMED})
    response.status_code = 201 if step.changed else 200
    response.headers["Location"] = f"/v1/reservations/{body.id}"
    return shown


@router.get(
    "/{reservation_id}",
    summary="Read a reservation",
    responses=problems(401, 403, 404),
    dependencies=[MAY_RESERVE],
)
async def read_reservation(
    reservation_id: ReservationPath, session: ReadSessionDep, runtime: RuntimeDep
) -> Reservation:
    """Read a reservation as it stands now."""
    try:
        found = await reservations.get(session, reservation_id, runtime.clock.now())
    except UnknownReservationError:
        raise _unknown(reservation_id) from None
    return Reservation.of(found)


@router.post(
    "/{reservation_id}/confirm",
    summary="Take held units out of the stock",
    responses=problems(401, 403, 404, 409),
)
async def confirm(
    reservation_id: ReservationPath, runtime: RuntimeDep, caller: Reserver
) -> Reservation:
    """Confirm a held reservation; a confirmed one stays as it is.

    One that has expired is 409 `urn:slipway:problem:reservation-expired`, and one that was
    released or returned is 409 `urn:slipway:problem:reservation-released`.
    """
    cause = Cause(runtime.clock.now(), actor=caller.subject)
    try:
        step = await run_transaction(
            runtime.database,
            lambda session: reservations.confirm(session, reservation_id, cause),
        )
    except UnknownReservationError:
        raise _unknown(reservation_id) from None
    return _settled(runtime, step, {State.CONFIRMED})


@router.post(
    "/{reservation_id}/release",
    summary="Give units back",
    responses=problems(401, 403),
)
async def release(
    reservation_id: ReservationPath, runtime: RuntimeDep, caller: Reserver
) -> Reservation:
    """Release a held reservation, or return the units of a confirmed one to the stock.

    Repeating it changes nothing. An unknown id is remembered as released, so that a reserve
    request that arrives late holds nothing.
    """
    cause = Cause(runtime.clock.now(), actor=caller.subject)
    step = await run_transaction(
        runtime.database,
        lambda session: reservations.release(session, reservation_id, cause),
    )
    return _settled(runtime, step, {State.RELEASED, State.RETURNED, State.EXPIRED})


async def _reserve(
    runtime: Runtime, body: ReservationRequest, wanted: dict[str, int], actor: str
) -> Step:
    settings = runtime.settings
    assert isinstance(settings, Settings)
    now = runtime.clock.now()
    seconds = body.expires_in_seconds or settings.reservation_default_seconds
    expires_at = now + timedelta(seconds=seconds)

    async def attempt() -> Step:
        return await run_transaction(
            runtime.database,
            lambda session: reservations.reserve(
                session,
                body.id,
                wanted,
                expires_at,
                Cause(now, actor=actor),
                confirm=body.confirm,
            ),
        )

    try:
        return await attempt()
    except InsufficientStockError as error:
        # Units may be held by promises that ran out and that the worker has not come to yet.
        short = [shortage.item_id for shortage in error.shortages]
        expired = await expire_due(
            runtime.database, now, limit=settings.expiry_batch, item_ids=short
        )
        if not expired:
            raise
        metrics_of(runtime).reservations.labels("expired").inc(expired)
        return await attempt()


def _settled(runtime: Runtime, step: Step, wanted: set[State]) -> Reservation:
    """Count what a step did, and answer with the reservation or the problem that it is in."""
    reservation = step.reservation
    if step.changed:
        metrics_of(runtime).reservations.labels(reservation.state.value).inc()
    if reservation.state in wanted:
        return Reservation.of(reservation)
    if reservation.state is State.EXPIRED:
        raise Problem(
            409,
            "The reservation expired",
            detail=f"Reservation {reservation.id} expired; its units are free again.",
            type="urn:slipway:problem:reservation-expired",
            state=reservation.state.value,
        )
    raise Problem(
        409,
        "The reservation was released",
        detail=f"Reservation {reservation.id} is {reservation.state.value}.",
        type="urn:slipway:problem:reservation-released",
        state=reservation.state.value,
    )


def _unknown(reservation_id: str) -> Problem:
    return Problem(404, detail=f"There is no reservation {reservation_id}.")
