"""What an order is: plain immutable values, without a database or a network."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from chassis.money import Money


class State(StrEnum):
    """Where the saga of an order stands.

    `REJECTING` is the saga's own; a client sees it as rejected.
    """

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTING = "rejecting"
    REJECTED = "rejected"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Status(StrEnum):
    """What a client is told about an order."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


_STATUS = {
    State.PENDING: Status.PENDING,
    State.CONFIRMED: Status.CONFIRMED,
    State.REJECTING: Status.REJECTED,
    State.REJECTED: Status.REJECTED,
    State.CANCELLING: Status.CANCELLING,
    State.CANCELLED: Status.CANCELLED,
}


def status_of(state: State) -> Status:
    """Return what a client is told of a state."""
    return _STATUS[state]


def states_of(status: Status) -> list[State]:
    """Return the states that a client sees as `status`."""
    return [state for state, seen in _STATUS.items() if seen is status]


@dataclass(frozen=True, slots=True)
class Line:
    """One item of an order; name and price are fixed when the order is priced."""

    item_id: str
    quantity: int
    name: str | None = None
    unit_price: Money | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an order was refused: a kebab-case code, one sentence, and what it is about."""

    code: str
    detail: str
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One order and the progress of its saga.

    `version` counts the writes and guards each of them. `hold` numbers the reservation in use:
    a reservation that ended at inventory is never used again, the next number is. `attempt`
    counts failures of the present step. `next_attempt_at` is None when nothing is left to do.
    """

    id: str
    owner: str
    state: State
    lines: tuple[Line, ...]
    created_at: datetime
    updated_at: datetime
    total: Money | None = None
    reason: Reason | None = None
    version: int = 1
    hold: int = 1
    attempt: int = 0
    next_attempt_at: datetime | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None

    @property
    def status(self) -> Status:
        """What a client is told."""
        return status_of(self.state)

    @property
    def reservation_id(self) -> str:
        """The name of this order's reservation at inventory: the order's id, or `id:n` later."""
        return self.id if self.hold == 1 else f"{self.id}:{self.hold}"
