"""What goes over the wire: the DTOs of the orders API, with examples for the OpenAPI document."""

from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chassis.money import Money
from chassis.pagination import Page
from orders.domain import Line, Order, Status

MAX_LINES = 50
MAX_QUANTITY = 10_000

ItemId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="The id of an item in the catalogue.",
        examples=["walnut-desk"],
    ),
]


class LineIn(BaseModel):
    """How many of which item."""

    model_config = ConfigDict(extra="forbid")

    item_id: ItemId
    quantity: int = Field(ge=1, le=MAX_QUANTITY, examples=[2])


def _within_reach(lines: list[LineIn]) -> list[LineIn]:
    total = Counter[str]()
    for line in lines:
        total[line.item_id] += line.quantity
    if any(quantity > MAX_QUANTITY for quantity in total.values()):
        raise ValueError(f"the lines of one item may add up to {MAX_QUANTITY} at most")
    return lines


class OrderIn(BaseModel):
    """A new order. Lines of the same item are added up."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"lines": [{"item_id": "walnut-desk", "quantity": 2}]}]},
    )

    lines: Annotated[
        list[LineIn], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_within_reach)
    ]

    def merged(self) -> tuple[Line, ...]:
        """Return one line per item, in the order in which the items came."""
        total = Counter[str]()
        for line in self.lines:
            total[line.item_id] += line.quantity
        return tuple(Line(item_id=item, quantity=quantity) for item, quantity in total.items())


class LineOut(BaseModel):
    """A line with the name and price that the catalogue had at order time."""

    item_id: str
    quantity: int
    name: str | None = Field(description="Null until the order is priced.")
    unit_price: Money | None = Field(description="Null until the order is priced.")


class ReasonOut(BaseModel):
    """Why an order was rejected."""

    code: str = Field(examples=["insufficient-stock"])
    detail: str
    lines: list[dict[str, Any]] = Field(description="The lines that it is about.")


class OrderOut(BaseModel):
    """An order as its owner sees it."""

    id: str
    status: Status = Field(
        description=(
            "pending: accepted, the service finishes it by itself; confirmed: the stock is yours; "
            "rejected: see reason; cancelling: stock is on its way back; cancelled."
        )
    )
    lines: list[LineOut]
    total: Money | None = Field(description="Null until the order is priced.")
    reason: ReasonOut | None = Field(description="Set when the order is rejected.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, order: Order) -> Self:
        """Return what a client sees of an order."""
        reason = order.reason
        return cls(
            id=order.id,
            status=order.status,
            lines=[
                LineOut(
                    item_id=line.item_id,
                    quantity=line.quantity,
                    name=line.name,
                    unit_price=line.unit_price,
                )
                for line in order.lines
            ],
            total=order.total,
            reason=reason
            and ReasonOut(
                code=reason.code, detail=reason.detail, lines=(reason.extra or {}).get("lines", [])
            ),
            created_at=order.created_at,
            updated_at=order.updated_at,
        )


class OrderPage(Page[OrderOut]):
    """One page of the caller's orders, newest first."""
