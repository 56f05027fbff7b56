"""What the API of the inventory takes and gives."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from inventory import reservations, stock
from inventory.reservations import State

MAX_LINES = 100

ItemId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"),
    Field(description="The id of an item of the catalogue.", examples=["walnut-desk"]),
]
ReservationId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"),
    Field(
        description="Chosen by the client, so that a request can be repeated.",
        examples=["0198f0a2-7c1e-7d3a-9f5e-3a1c8b1f2e77"],
    ),
]
Quantity = Annotated[int, Field(strict=True, ge=1, le=1_000_000, examples=[2])]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000, examples=[25])]


class _Request(BaseModel):
    """A body that refuses fields it does not know, so that a misspelt one is no silence."""

    model_config = ConfigDict(extra="forbid")


class Line(_Request):
    """Units of one item."""

    item_id: ItemId
    quantity: Quantity


Lines = Annotated[
    list[Line],
    Field(
        min_length=1,
        max_length=MAX_LINES,
        description="Lines of the same item are added up.",
    ),
]


def merged(lines: Iterable[Line]) -> dict[str, int]:
    """Add up the lines of the same item."""
    total: dict[str, int] = {}
    for line in lines:
        total[line.item_id] = total.get(line.item_id, 0) + line.quantity
    return total


class Check(_Request):
    """A question: is there enough of all of these?"""

    items: Lines


class Shortage(BaseModel):
    """An item of which there is not enough."""

    item_id: str = Field(examples=["walnut-desk"])
    requested: int = Field(examples=[2])
    available: int = Field(examples=[1])

    @classmethod
    def of(cls, shortage: stock.Shortage) -> "Shortage":
        """Show a shortage."""
        return cls(
            item_id=shortage.item_id,
            requested=shortage.requested,
            available=shortage.available,
        )


class CheckResult(BaseModel):
    """The answer at this moment. Only a reservation keeps it true."""

    available: bool
    short: list[Shortage]


class Stock(BaseModel):
    """The stock of one item, in units."""

    item_id: str = Field(examples=["walnut-desk"])
    on_hand: int = Field(description="Units in the warehouse.", examples=[25])
    held: int = Field(description="Units on hand that are promised.", examples=[3])
    available: int = Field(description="Units that can be reserved.", examples=[22])
    updated_at: datetime

    @classmethod
    def of(cls, level: stock.Level) -> "Stock":
        """Show a level."""
        return cls(
            item_id=level.item_id,
            on_hand=level.on_hand,
            held=level.held,
            available=level.available,
            updated_at=level.updated_at,
        )


class StockSet(_Request):
    """A new count, as after counting the shelf."""

    on_hand: Count


class Restock(_Request):
    """Units that arrived."""

    quantity: Quantity


class ReservationRequest(_Request):
    """Units to hold, all or nothing."""

    id: ReservationId
    lines: Lines
    expires_in_seconds: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            le=86_400,
            description="How long to hold; after it the units are free again.",
            examples=[900],
        ),
    ] = None
    confirm: Annotated[
        bool,
        Field(
            strict=True,
            description="Take the units at once, which saves a call if nothing comes in between.",
        ),
    ] = False


class ReservedLine(BaseModel):
    """Units of one item that a reservation is about."""

    item_id: str = Field(examples=["walnut-desk"])
    quantity: int = Field(examples=[2])


class Reservation(BaseModel):
    """A promise of units."""

    id: str
    state: State = Field(
        description="held -> confirmed -> returned, or held -> released, or held -> expired."
    )
    lines: list[ReservedLine] = Field(
        description="Sorted by item. Empty if the id was released before it was reserved."
    )
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, reservation: reservations.Reservation) -> "Reservation":
        """Show a reservation."""
        return cls(
            id=reservation.id,
            state=reservation.state,
            lines=[
                ReservedLine(item_id=item_id, quantity=quantity)
                for item_id, quantity in sorted(reservation.lines.items())
            ],
            expires_at=reservation.expires_at,
            created_at=reservation.created_at,
            updated_at=reservation.updated_at,
        )
