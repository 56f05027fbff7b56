"""Routes of the stock: read it, ask whether it is enough, set it, add to it."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from chassis.database import ReadSessionDep, SessionDep
from chassis.etags import IfMatch, IfNoneMatch, etag, not_modified, require_match
from chassis.idempotency import IdempotencyDep
from chassis.problems import Problem, problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal, requires
from inventory import stock
from inventory.schemas import Check, CheckResult, ItemId, Restock, Shortage, Stock, StockSet, merged
from inventory.stock import Cause

Writer = Annotated[Principal, requires("inventory:write")]
ItemPath = Annotated[ItemId, Path()]

router = APIRouter(tags=["stock"])


@router.post(
    "/check",
    summary="Ask whether there is enough",
    responses=problems(401, 422),
    dependencies=[requires()],
)
async def check(body: Check, session: ReadSessionDep) -> CheckResult:
    """Say whether all items are available now, and which are short.

    Nothing is held: only a reservation is a promise. Lines of the same item are added up; an item
    that was never stocked has 0 units.
    """
    short = await stock.shortages(session, merged(body.items))
    return CheckResult(available=not short, short=[Shortage.of(item) for item in short])


@router.get(
    "/stock/{item_id}",
    summary="Read the stock of an item",
    response_model=Stock,
    responses={304: {"description": "The client has this state already"}, **problems(401, 404)},
    dependencies=[requires()],
)
async def read_stock(
    item_id: ItemPath, session: ReadSessionDep, if_none_match: IfNoneMatch = None
) -> Response:
    """Read how many units there are, how many of them are held, and how many can be reserved."""
    level = await stock.get(session, item_id)
    if level is None:
        raise Problem(404, detail=f"Item {item_id} was never stocked.")
    if not_modified(if_none_match, level.version):
        return Response(status_code=304, headers={"ETag": etag(level.version)})
    return _shown(level)


@router.put(
    "/stock/{item_id}",
    summary="Set the stock of an item",
    response_model=Stock,
    responses={
        201: {"model": Stock, "description": "The item has a stock for the first time"},
        **problems(401, 403, 409, 412),
    },
)
async def set_stock(
    *,
    item_id: ItemPath,
    body: StockSet,
    session: SessionDep,
    runtime: RuntimeDep,
    caller: Writer,
    if_match: IfMatch = None,
) -> Response:
    """Set the units on hand, as after counting the shelf; 201 for an item without a stock so far.

    Units that reservations hold cannot be counted away: fewer than those is a 409. `If-Match` is
    optional and makes the write depend on the stock being as it was read; `*`, on there being one.
    """
    version = None
    if if_match is not None:
        level = await stock.get(session, item_id)
        if level is None:
            # Also for `*`: it asks for a stock that is there.
            raise _failed(f"Item {item_id} was never stocked.")
        version = level.version
        require_match(if_match, version)
    cause = Cause(runtime.clock.now(), actor=caller.subject)
    try:
        level, created = await stock.set_level(
            session, item_id, body.on_hand, cause, version=version
        )
    except stock.StaleError:
        raise _failed("The stock changed since it was read.") from None
    except stock.StockHeldError as error:
        raise Problem(
            409,
            "Units are held",
            detail=f"{error.level.held} units of {item_id} are held by reservations.",
            type="urn:slipway:problem:stock-held",
            held=error.level.held,
        ) from None
    return _shown(level, 201 if created else 200)


@router.post(
    "/stock/{item_id}/restock",
    summary="Add units of an item",
    response_model=Stock,
    responses=problems(401, 403, 409),
)
async def restock(
    *,
    item_id: ItemPath,
    body: Restock,
    session: SessionDep,
    runtime: RuntimeDep,
    caller: Writer,
    idempotency: IdempotencyDep,
) -> Response:
    """Add units that arrived. Send an `Idempotency-Key`, so that a repeated request adds once."""
    replay = await idempotency.claim(session)
    if replay is not None and replay.completed:
        return replay.response()
    cause = Cause(runtime.clock.now(), actor=caller.subject)
    level = await stock.restock(session, item_id, body.quantity, cause)
    headers = {"ETag": etag(level.version)}
    return await idempotency.complete(session, 200, Stock.of(level), headers)


def _failed(detail: str) -> Problem:
    return Problem(412, detail=detail, type="urn:slipway:problem:precondition-failed")


def _shown(level: stock.Level, status: int = 200) -> Response:
    body = Stock.of(level).model_dump_json()
    headers = {"ETag": etag(level.version)}
    return Response(body, status, headers, media_type="application/json")
