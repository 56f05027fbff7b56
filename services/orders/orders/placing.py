"""Placing an order while its client waits: price, store, drive, answer.

The order is stored before anything is asked of inventory, so a crash leaves an order that a
worker finishes. When nothing goes wrong this takes two calls and two transactions.
"""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response
from starlette.types import Scope

from chassis.database import run_transaction
from chassis.http import PeerError, remaining
from chassis.idempotency import ClaimLostError, Idempotency, Replay
from chassis.problems import Problem, problem_response
from orders import store
from orders.domain import Line, Order, Reason, Status
from orders.driver import GAVE_UP, Write, time_limit
from orders.peers import INSUFFICIENT, UnexpectedAnswerError
from orders.saga import Priced, Refused
from orders.schemas import OrderOut
from orders.service import Orders

# What is left of the request's time for the transaction at the end and the way back.
_RESERVE_SECONDS = 0.5

_REFUSALS = {
    INSUFFICIENT: (409, "Insufficient stock"),
    GAVE_UP: (409, "Order given up"),
    "unknown-items": (422, "Unknown items"),
    "items-not-for-sale": (422, "Items not for sale"),
    "mixed-currencies": (422, "Mixed currencies"),
    "total-too-large": (422, "Total too large"),
}


async def place(
    orders: Orders, owner: str, lines: tuple[Line, ...], idempotency: Idempotency, scope: Scope
) -> Response:
    """Place an order and return its answer: 201, 202 or a problem.

    Raises:
        Problem: the lines cannot be sold (nothing is stored), or the idempotency key is misused.
    """
    database = orders.runtime.database
    clock = orders.runtime.clock
    left = remaining(clock)
    seconds = orders.settings.saga_inline_seconds
    if left is not None:
        seconds = min(seconds, left - _RESERVE_SECONDS)
    until = clock.monotonic() + seconds
    prices = await _price(orders, lines, seconds)

    async def begin(session: AsyncSession) -> Order | Replay:
        replay = await idempotency.claim(session)
        if replay is not None:
            return replay
        if isinstance(prices, Refused):
            raise refusal(prices.reason)
        order = orders.driver.place(owner, lines, prices)
        await orders.driver.add(session, order)
        await idempotency.attach(session, order.id)
        return order

    async def finish(session: AsyncSession, order: Order) -> bool:
        if idempotency.key is None:
            return True
        answered = answer(order, scope)
        headers = {name.title(): value for name, value in answered.headers.items()}
        del headers["Content-Length"]
        try:
            await idempotency.complete(session, answered.status_code, bytes(answered.body), headers)
        except ClaimLostError:
            return False  # a repeat was answered 202 meanwhile, perhaps nobody listens here
        return True

    begun = await run_transaction(database, begin)
    if isinstance(begun, Replay):
        return await _again(orders, begun, finish, scope)
    order = await orders.driver.drive(
        begun, inline_seconds=max(0.0, until - clock.monotonic()), write=finish
    )
    return answer(order, scope)


async def _price(
    orders: Orders, lines: tuple[Line, ...], seconds: float
) -> Priced | Refused | None:
    """Ask the catalogue; None when it does not answer, which is no reason to lose the order."""
    try:
        with time_limit(seconds, orders.runtime.clock):
            return await orders.peers.price(lines)
    except (PeerError, UnexpectedAnswerError) as exc:
        orders.runtime.log.info("order.not_priced", why=str(exc))
    return None


async def _again(orders: Orders, replay: Replay, finish: Write, scope: Scope) -> Response:
    """Answer a repeated request: as before, or from its order's state.

    The second when the first one died or is slow. A pending order is answered 202, and its buyer
    is told by a notification how it ends, whoever ends it.
    """
    if replay.completed:
        return replay.response()

    async def look(session: AsyncSession) -> Order:
        order = await store.load(session, str(replay.resource_id))
        assert order is not None  # stored with the claim, and never deleted
        await finish(session, order)
        return order

    return answer(await run_transaction(orders.runtime.database, look), scope)


def answer(order: Order, scope: Scope) -> Response:
    """Return what the client that places an order is told of it."""
    if order.status is Status.REJECTED:
        assert order.reason is not None
        return problem_response(refusal(order.reason, order.id), scope)
    return Response(
        OrderOut.of(order).model_dump_json(),
        status_code=201 if order.status is Status.CONFIRMED else 202,
        headers={"Location": f"/v1/orders/{order.id}"},
        media_type="application/json",
    )


def refusal(reason: Reason, order_id: str | None = None) -> Problem:
    """Return the problem that says why an order was refused."""
    status, title = _REFUSALS[reason.code]
    extensions: dict[str, Any] = dict(reason.extra or {})
    if order_id is not None:
        extensions["order_id"] = order_id
    return Problem(
        status,
        title,
        detail=reason.detail,
        type=f"urn:slipway:problem:{reason.code}",
        **extensions,
    )
