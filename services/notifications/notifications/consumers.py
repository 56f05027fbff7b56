"""What the service tells when something happens to an order.

The chassis' inbox hands every event to its handler once, in the transaction that records it.
"""

from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.events.cloudevent import CloudEvent
from chassis.ids import new_id
from chassis.money import Money
from chassis.problems import Problem
from chassis.runtime import Runtime
from notifications.channels import Channel, InApp
from notifications.models import Notification


class OrderLine(BaseModel):
    """A line of the order; `name` is null as long as the catalogue was not asked."""

    item_id: str
    name: str | None = None


class ReasonLine(BaseModel):
    """A line that a reason is about; a short one says how many were wanted, and how many are."""

    item_id: str
    requested: int | None = None
    available: int | None = None


class Reason(BaseModel):
    """Why an order was rejected: a code, a sentence, and the lines that it is about."""

    code: str
    detail: str
    lines: list[ReasonLine] = []


class OrderEvent(BaseModel):
    """The data of the `order.*` events; further fields are none of ours."""

    order_id: str
    owner: str
    total: Money | None = None
    lines: list[OrderLine] = []
    reason: Reason | None = None

    def named(self) -> str:
        """Return how a text names the order."""
        total = "" if self.total is None else f" of {self.total.amount} {self.total.currency}"
        return f"Your order {self.order_id}{total}"

    def why(self) -> str:
        """Return why it was rejected, with the lines by their names: ` Sold out (Desk).`."""
        if self.reason is None:
            return ""
        names = {line.item_id: line.name or line.item_id for line in self.lines}
        about = [
            names.get(line.item_id, line.item_id)
            + ("" if line.available is None else f": {line.available} of {line.requested} left")
            for line in self.reason.lines
        ]
        detail = self.reason.detail.rstrip(".")
        return f" {detail} ({', '.join(about)})." if about else f" {detail}."


async def _tell(
    kind: str, title: str, event: CloudEvent, session: AsyncSession, runtime: Runtime
) -> None:
    try:
        order = OrderEvent.model_validate(event.data)
    except ValidationError as exc:
        # The sender's outbox keeps it as a dead letter, where an operator finds and replays it.
        raise Problem(422, detail=f"the data of event {event.id} is not that of an order") from exc
    body = f"{order.named()} is {kind.removeprefix('order.')}."
    data: dict[str, Any] = {"order_id": order.order_id}
    if order.total is not None:
        data["total"] = order.total.model_dump(mode="json")
    if kind == "order.rejected":
        body += order.why()
        if order.reason is not None:
            data["reason"] = order.reason.model_dump(mode="json", exclude_none=True)
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
    await _tell("order.confirmed", "Order confirmed", event, session, runtime)


async def order_rejected(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that the order that was accepted before is rejected, and why."""
    await _tell("order.rejected", "Order rejected", event, session, runtime)


async def order_cancelled(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that their order is cancelled."""
    await _tell("order.cancelled", "Order cancelled", event, session, runtime)
