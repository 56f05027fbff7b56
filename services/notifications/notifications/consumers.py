"""What the service tells when something happens to an order.

The chassis' inbox hands every event to its handler once, in the transaction that records it.
"""

from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.events.cloudevent import CloudEvent
from chassis.ids import new_id
from chassis.money import Money
from chassis.problems import Problem
from chassis.runtime import Runtime
from notifications.channels import Channel, InApp
from notifications.models import Notification


class OrderEvent(BaseModel):
    """The data of `order.confirmed` and `order.cancelled`; further fields are none of ours."""

    order_id: str
    owner: str
    total: Money | None = None


def _text(
    kind: Literal["order.confirmed", "order.cancelled"], order: OrderEvent
) -> tuple[str, str]:
    total = "" if order.total is None else f" of {order.total.amount} {order.total.currency}"
    if kind == "order.confirmed":
        return "Order confirmed", f"Your order {order.order_id}{total} is confirmed."
    return "Order cancelled", f"Your order {order.order_id}{total} is cancelled."


async def _tell(
    kind: Literal["order.confirmed", "order.cancelled"],
    event: CloudEvent,
    session: AsyncSession,
    runtime: Runtime,
) -> None:
    try:
        order = OrderEvent.model_validate(event.data)
    except ValidationError as exc:
        # The sender's outbox keeps it as a dead letter, where an operator finds and replays it.
        raise Problem(422, detail=f"the data of event {event.id} is not that of an order") from exc
    title, body = _text(kind, order)
    data: dict[str, Any] = {"order_id": order.order_id}
    if order.total is not None:
        data["total"] = order.total.model_dump(mode="json")
    channel: Channel = runtime.extras.get("channel") or InApp()
    await channel.deliver(
        session,
        Notification(
            id=new_id(),
            recipient=order.owner,
            kind=kind,
            title=title,
            body=body,
            data=data,
            event_id=event.id,
            created_at=runtime.clock.now(),
            read_at=None,
        ),
    )


async def order_confirmed(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that their order is confirmed."""
    await _tell("order.confirmed", event, session, runtime)


async def order_cancelled(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that their order is cancelled."""
    await _tell("order.cancelled", event, session, runtime)
