"""What the service tells when something happens to an order or a task.

The chassis' inbox hands every event to its handler once, in the transaction that records it.
"""

from datetime import UTC
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.events.cloudevent import CloudEvent
from chassis.money import Money
from chassis.problems import Problem
from chassis.runtime import Runtime
from notifications.channels import tell

D = TypeVar("D", bound=BaseModel)


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


class TaskEvent(BaseModel):
    """The data of `task.due-soon`; further fields are none of ours."""

    task_id: str
    owner: str
    title: str
    due_at: AwareDatetime


def _data(model: type[D], event: CloudEvent, kind: str) -> D:
    try:
        return model.model_validate(event.data)
    except ValidationError as exc:
        # The sender's outbox keeps it as a dead letter, where an operator finds and replays it.
        raise Problem(422, detail=f"the data of event {event.id} is not that of {kind}") from exc


async def _tell(title: str, event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    order = _data(OrderEvent, event, "an order")
    body = f"{order.named()} is {event.type.removeprefix('order.')}."
    data: dict[str, Any] = {"order_id": order.order_id}
    if order.total is not None:
        data["total"] = order.total.model_dump(mode="json")
    if event.type == "order.rejected":
        body += order.why()
        if order.reason is not None:
            data["reason"] = order.reason.model_dump(mode="json", exclude_none=True)
    await tell(session, runtime, event, recipient=order.owner, title=title, body=body, data=data)


async def order_confirmed(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that their order is confirmed."""
    await _tell("Order confirmed", event, session, runtime)


async def order_rejected(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that the order that was accepted before is rejected, and why."""
    await _tell("Order rejected", event, session, runtime)


async def order_cancelled(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that their order is cancelled."""
    await _tell("Order cancelled", event, session, runtime)


async def task_due_soon(event: CloudEvent, session: AsyncSession, runtime: Runtime) -> None:
    """Tell the owner that a task of theirs falls due soon."""
    task = _data(TaskEvent, event, "a task")
    due_at = task.due_at.astimezone(UTC)
    await tell(
        session,
        runtime,
        event,
        recipient=task.owner,
        title="Task due soon",
        body=f"Your task \u201c{task.title}\u201d is due on {due_at:%Y-%m-%d at %H:%M} UTC.",
        data={"task_id": task.task_id, "due_at": due_at.isoformat().replace("+00:00", "Z")},
    )
