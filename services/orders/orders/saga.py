"""The saga of an order as a state machine: pure functions, no clock, no I/O.

    pending --priced--> pending -------completed-------> confirmed
       |                   |                                 |
       | refused           | refused, abandoned              | cancel (also from pending)
       v                   v                                 v
    rejected           rejecting --released--> rejected  cancelling --released--> cancelled

`next_step` says what to do, the driver does it, and `advance` turns what came back into the next
order. Each step may be repeated: its peer knows the reservation by the id of the order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from chassis.money import Money
from orders.domain import Line, Order, Reason, State, Status


class Step(StrEnum):
    """A call that the saga makes to a peer."""

    PRICE = "price"
    RESERVE = "reserve"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Priced:
    """The catalogue knows every item; the prices are fixed now."""

    lines: tuple[Line, ...]
    total: Money


@dataclass(frozen=True, slots=True)
class Refused:
    """A peer's final answer is no: an unknown item, mixed currencies, short stock."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Completed:
    """Inventory gave the stock to this order for good."""


@dataclass(frozen=True, slots=True)
class HoldLost:
    """The reservation ended at inventory before it was confirmed (somebody released it)."""


@dataclass(frozen=True, slots=True)
class Released:
    """Inventory has no stock set aside for this order, and will set none aside."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The owner wants the order undone."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The order waited longer for a peer than the bound allows."""

    reason: Reason


Event = Priced | Refused | Completed | HoldLost | Released | CancelAsked | Abandoned


class IllegalTransitionError(Exception):
    """The event means nothing in the state that the order is in."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{type(event).__name__} is not possible in state {state}")
        self.state = state
        self.event = event


_RELEASING = frozenset({State.REJECTING, State.CANCELLING})
FINAL = frozenset({State.CONFIRMED, State.REJECTED, State.CANCELLED})
OPEN = frozenset(State) - FINAL

# What the world is told when an order reaches a status.
ANNOUNCED = {
    Status.CONFIRMED: "order.confirmed",
    Status.REJECTED: "order.rejected",
    Status.CANCELLED: "order.cancelled",
}


def next_step(order: Order) -> Step | None:
    """Return the call that brings the order forward, None when the saga is over."""
    if order.state is State.PENDING:
        return Step.PRICE if order.total is None else Step.RESERVE
    return Step.RELEASE if order.state in _RELEASING else None


def _price(order: Order, event: Event) -> Order:
    assert isinstance(event, Priced)
    return replace(order, lines=event.lines, total=event.total)


def _refuse(order: Order, event: Event) -> Order:
    assert isinstance(event, Refused | Abandoned)
    # An unpriced order never asked for stock. For any other one an earlier request may still be
    # under way to inventory, so the reservation is released before the order rests.
    unpriced = order.total is None
    state = State.REJECTED if unpriced else State.REJECTING
    return replace(order, state=state, reason=event.reason)


def _to(state: State) -> Callable[[Order, Event], Order]:
    return lambda order, _event: replace(order, state=state)


def _hold_again(order: Order, _event: Event) -> Order:
    return replace(order, hold=order.hold + 1)


def _cancel(order: Order, _event: Event) -> Order:
    # Stock is asked for only after the priced order is stored: an unpriced one holds none.
    unpriced = order.total is None
    return replace(order, state=State.CANCELLED if unpriced else State.CANCELLING)


def _same(order: Order, _event: Event) -> Order:
    return order


_TRANSITIONS: dict[State, dict[type[Event], Callable[[Order, Event], Order]]] = {
    State.PENDING: {
        Priced: _price,
        Refused: _refuse,
        Abandoned: _refuse,
        Completed: _to(State.CONFIRMED),
        HoldLost: _hold_again,
        CancelAsked: _cancel,
    },
    State.CONFIRMED: {CancelAsked: _cancel},
    State.REJECTING: {Released: _to(State.REJECTED)},
    State.REJECTED: {},
    State.CANCELLING: {Released: _to(State.CANCELLED), CancelAsked: _same},
    State.CANCELLED: {CancelAsked: _same},
}


def advance(order: Order, event: Event) -> Order:
    """Return the order after an event; `attempt` starts again when the step changes.

    Raises:
        IllegalTransitionError: the event is not possible in the order's state.
    """
    act = _TRANSITIONS[order.state].get(type(event))
    if act is None or (isinstance(event, Completed | HoldLost) and order.total is None):
        raise IllegalTransitionError(order.state, event)
    after = act(order, event)
    if after is order or next_step(after) is next_step(order):
        return after
    return replace(after, attempt=0)


def announcement(before: Order, after: Order, *, answered: bool = False) -> str | None:
    """Return the type of the event to publish for a change, None when there is none.

    `answered`: the buyer waits for the answer of this change. A refusal is then said once, by the
    answer; the buyer of an order that was accepted before (202) hears of it by the event.
    """
    if after.status is before.status or (answered and after.status is Status.REJECTED):
        return None
    return ANNOUNCED.get(after.status)


def retry_delay(attempt: int, *, base: float, cap: float, spread: float) -> float:
    """Return the seconds to wait before a try: doubling from `base` up to `cap`.

    `spread` in [0, 1) is a random number: the delay lies between half and all of the full step,
    so orders that failed together do not come back together.
    """
    full = min(cap, base * 2.0 ** min(attempt, 32))
    return full * (0.5 + spread / 2)
