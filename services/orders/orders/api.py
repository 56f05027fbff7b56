"""The routes of orders."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from chassis.database import ReadSessionDep
from chassis.idempotency import IdempotencyDep
from chassis.pagination import CursorParams, bad_cursor, decode_cursor, encode_cursor
from chassis.problems import Problem, problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal, requires
from orders import placing, store
from orders.domain import Status
from orders.saga import IllegalTransitionError
from orders.schemas import OrderIn, OrderOut, OrderPage
from orders.service import orders_of

router = APIRouter(prefix="/orders", tags=["orders"])

Reader = Annotated[Principal, requires("orders:read")]
Writer = Annotated[Principal, requires("orders:write")]
OrderId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        examples=["0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40"],
    ),
]
_LOCATION = {"Location": {"description": "The order.", "schema": {"type": "string"}}}


@router.post(
    "",
    status_code=201,
    response_model=OrderOut,
    summary="Place an order",
    response_description="Confirmed: priced, and the stock is set aside for good.",
    responses={
        201: {"headers": _LOCATION},
        202: {
            "model": OrderOut,
            "description": (
                "Accepted: a peer is away or slow. The order is pending and finishes by itself; "
                "its owner can read it at `Location`, and is notified when it is confirmed or "
                "rejected."
            ),
            "headers": _LOCATION,
        },
        **problems(401, 403, 409, 422, 503),
    },
)
async def place_order(
    body: OrderIn, caller: Writer, request: Request, runtime: RuntimeDep, key: IdempotencyDep
) -> Response:
    """Price the lines from the catalogue, set the stock aside and confirm the order.

    The price is the catalogue's at this moment and does not change any more. All lines have one
    currency. 409 `urn:slipway:problem:insufficient-stock` names the short lines; 422
    `urn:slipway:problem:unknown-items` names items that the catalogue does not have.

    Send an `Idempotency-Key` to repeat the request safely: one key makes one order.
    """
    return await placing.place(
        orders_of(runtime), caller.subject, body.merged(), key, request.scope
    )


@router.get("", summary="List your orders", responses=problems(400, 401, 403))
async def list_orders(
    caller: Reader,
    session: ReadSessionDep,
    page: CursorParams,
    status: Annotated[Status | None, Query(description="Only orders with this status.")] = None,
) -> OrderPage:
    """Return the caller's orders, newest first."""
    scope = f"orders:{caller.subject}:{status or ''}"
    before = None if page.cursor is None else _last_id(page.cursor, scope)
    orders = await store.page(
        session, caller.subject, status=status, before=before, limit=page.limit + 1
    )
    shown = orders[: page.limit]
    more = len(orders) > page.limit
    return OrderPage(
        items=[OrderOut.of(order) for order in shown],
        next_cursor=encode_cursor([shown[-1].id], scope=scope) if more else None,
    )


def _last_id(cursor: str, scope: str) -> str:
    match decode_cursor(cursor, scope=scope):
        case [str(order_id)]:
            return order_id
    raise bad_cursor()


@router.get("/{order_id}", summary="Read an order", responses=problems(401, 403, 404))
async def read_order(order_id: OrderId, caller: Reader, session: ReadSessionDep) -> OrderOut:
    """Return one of the caller's orders."""
    order = await store.load(session, order_id, owner=caller.subject)
    if order is None:
        raise Problem(404, detail="You have no order with this id.")
    return OrderOut.of(order)


@router.post(
    "/{order_id}/cancel",
    response_model=OrderOut,
    summary="Cancel an order",
    response_description="Cancelled: the stock is back.",
    responses={
        202: {
            "model": OrderOut,
            "description": "The order will be cancelled; its stock is on its way back.",
        },
        **problems(401, 403, 404, 409),
    },
)
async def cancel_order(
    order_id: OrderId, caller: Writer, runtime: RuntimeDep, response: Response
) -> OrderOut:
    """Give the stock of a pending or confirmed order back. Cancelling again changes nothing.

    A rejected order cannot be cancelled: 409 `urn:slipway:problem:order-not-cancellable`.
    """
    try:
        order = await orders_of(runtime).driver.cancel(order_id, caller.subject)
    except IllegalTransitionError as exc:
        raise Problem(
            409,
            "Order not cancellable",
            detail="A rejected order cannot be cancelled.",
            type="urn:slipway:problem:order-not-cancellable",
        ) from exc
    if order is None:
        raise Problem(404, detail="You have no order with this id.")
    response.status_code = 200 if order.status is Status.CANCELLED else 202
    return OrderOut.of(order)
