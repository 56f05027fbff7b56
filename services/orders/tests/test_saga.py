"""The state machine of the saga: pure, so Hypothesis may try every order of events."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chassis.money import Money
from orders.domain import Line, Order, Reason, State, Status, states_of, status_of
from orders.saga import (
    FINAL,
    OPEN,
    Abandoned,
    CancelAsked,
    Completed,
    Event,
    HoldLost,
    IllegalTransitionError,
    Priced,
    Refused,
    Released,
    Step,
    advance,
    announcement,
    next_step,
    retry_delay,
)

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PRICE = Money(amount=Decimal("12.50"), currency="EUR")
TOTAL = Money(amount=Decimal("25.00"), currency="EUR")
LINES = (Line("desk", 2),)
PRICED = Priced((Line("desk", 2, "Desk", PRICE),), TOTAL)
REFUSED = Refused(Reason("insufficient-stock", "There is not enough stock."))
ABANDONED = Abandoned(Reason("peer-unavailable", "Too late."))
EVENTS: list[Event] = [
    PRICED, REFUSED, ABANDONED, Completed(), HoldLost(), Released(), CancelAsked(),
]  # fmt: skip


def new_order(state: State = State.PENDING, *, priced: bool = True) -> Order:
    order = Order("o1", "u1", state, LINES, created_at=NOW, updated_at=NOW)
    return replace(order, lines=PRICED.lines, total=TOTAL) if priced else order


def test_the_straight_way_prices_and_reserves():
    """An order without trouble takes two steps, and the world is told once, at the end."""
    order = new_order(priced=False)
    told = []
    events = {Step.PRICE: PRICED, Step.RESERVE: Completed()}
    taken = []
    while (step := next_step(order)) is not None:
        taken.append(step)
        before, order = order, advance(order, events[step])
        told.append(announcement(before, order))
    assert taken == [Step.PRICE, Step.RESERVE]
    assert order.state is State.CONFIRMED
    assert [event for event in told if event] == ["order.confirmed"]


@pytest.mark.parametrize("priced", [True, False])
def test_a_refusal_is_announced_unless_it_was_the_answer(priced: bool):
    """An accepted order that is refused later tells its owner once; an inline refusal does not."""
    before = new_order(priced=priced)
    refused = advance(before, REFUSED)
    assert announcement(before, refused) == "order.rejected"
    assert announcement(before, refused, answered=True) is None
    if priced:
        assert announcement(refused, advance(refused, Released())) is None
    confirmed = advance(new_order(), Completed())
    assert announcement(new_order(), confirmed, answered=True) == "order.confirmed"


@pytest.mark.parametrize("state", State)
def test_only_final_states_have_no_next_step(state: State):
    """Whatever is not final has something to do, so a worker that asks finds no dead end."""
    assert (next_step(new_order(state)) is None) == (state in FINAL)
    assert set(State) == FINAL | OPEN


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_final_states_are_left_only_by_a_cancellation(state: State, event: Event):
    """A confirmed order can be cancelled; nothing else moves an order that is at rest."""
    if state not in FINAL:
        return
    order = new_order(state)
    try:
        after = advance(order, event)
    except IllegalTransitionError:
        return
    assert isinstance(event, CancelAsked)
    assert after.state is (State.CANCELLING if state is State.CONFIRMED else state)


@pytest.mark.parametrize(
    "state", [State.CONFIRMED, State.REJECTING, State.REJECTED, State.CANCELLED]
)
def test_an_order_that_is_settled_cannot_be_confirmed_again(state: State):
    """A late answer of inventory to a step that is over is a mistake, not a transition."""
    with pytest.raises(IllegalTransitionError):
        advance(new_order(state), Completed())


def test_an_unpriced_order_is_refused_and_cancelled_without_inventory():
    """Nothing was asked of inventory yet, so nothing has to be released."""
    order = new_order(priced=False)
    assert advance(order, REFUSED).state is State.REJECTED
    assert advance(order, CancelAsked()).state is State.CANCELLED
    with pytest.raises(IllegalTransitionError):
        advance(order, Completed())


def test_a_lost_hold_gets_a_new_name():
    """A reservation that ended is never confirmed: the next one has another id."""
    order = new_order()
    assert order.reservation_id == "o1"
    again = advance(order, HoldLost())
    assert (again.state, again.reservation_id) == (State.PENDING, "o1:2")


def test_attempts_start_again_with_the_next_step():
    """The wait before a try says how often this step failed, not the order's whole life."""
    order = replace(new_order(priced=False), attempt=7)
    assert advance(order, PRICED).attempt == 0


@pytest.mark.parametrize("status", Status)
def test_every_state_has_one_status(status: Status):
    """The filter of the list finds exactly the states that show the status."""
    assert [state for state in State if status_of(state) is status] == states_of(status)


@given(
    attempt=st.integers(0, 10_000),
    base=st.floats(0.01, 10),
    cap=st.floats(0.01, 100),
    spread=st.floats(0, 1, exclude_max=True),
)
def test_delays_are_bounded(attempt: int, base: float, cap: float, spread: float):
    """However often a step failed, the next try comes within the cap and not at once."""
    delay = retry_delay(attempt, base=base, cap=cap, spread=spread)
    assert min(base, cap) / 2 <= delay <= cap


@dataclass
class _Inventory:
    """What inventory promises: one outcome per reservation id, tombstones for unknown releases."""

    stock: int = 2
    states: dict[str, str] = field(default_factory=dict)

    def reserve(self, name: str) -> Event:
        if name not in self.states:
            if self.stock < 2:
                return REFUSED
            self.stock -= 2
            self.states[name] = "confirmed"
        return Completed() if self.states[name] == "confirmed" else HoldLost()

    def release(self, name: str) -> Event:
        if self.states.get(name) == "confirmed":
            self.stock += 2
        self.states[name] = "released"
        return Released()

    def kept(self) -> int:
        return sum(state == "confirmed" for state in self.states.values())


class _SagaMachine(RuleBasedStateMachine):
    """Two processes drive one order; they crash, answers and requests are late, the owner cancels.

    The database is modelled by its guard: a write succeeds only on the version it started from.
    """

    drivers = st.sampled_from([0, 1])

    @initialize(stock=st.integers(0, 4), priced=st.booleans())
    def begin(self, stock: int, priced: bool) -> None:
        self.inventory = _Inventory(stock)
        self.goods = stock
        self.stored = new_order(priced=priced)
        self.held: list[Order | None] = [None, None]
        self.base = [0, 0]
        self.answers: list[Event | None] = [None, None]
        self.late: list[Callable[[], Event]] = []
        self.told: list[str] = []
        self.seen: list[Status] = []

    @rule(i=drivers)
    def lease(self, i: int) -> None:
        """Take the order over; the former holder's version is then out of date."""
        if next_step(self.stored) is not None:
            self.stored = replace(self.stored, version=self.stored.version + 1)
            self.held[i], self.base[i], self.answers[i] = self.stored, self.stored.version, None

    @rule(i=drivers)
    def crash(self, i: int) -> None:
        self.held[i] = self.answers[i] = None

    @rule(i=drivers)
    def ask(self, i: int) -> None:
        """Make the call of the next step; asking twice is a retry after a lost answer."""
        order = self.held[i]
        step = next_step(order) if order else None
        if order is not None and step is not None:
            call = self._call(step, order)
            self.late.append(call)
            self.answers[i] = call()

    @rule(i=drivers)
    def commit(self, i: int) -> None:
        order, event = self.held[i], self.answers[i]
        if order is None or event is None:
            return
        after = advance(order, event)
        self.answers[i] = None
        self.held[i] = self._save(self.base[i], after)
        self.base[i] = self.stored.version

    @rule()
    def cancel(self) -> None:
        try:
            after = advance(self.stored, CancelAsked())
        except IllegalTransitionError:
            assert self.stored.status is Status.REJECTED
            return
        if after is not self.stored:
            self._save(self.stored.version, after)

    @rule(i=drivers)
    def give_up(self, i: int) -> None:
        order = self.held[i]
        if order is not None and order.status is Status.PENDING:
            self.held[i] = self._save(self.base[i], advance(order, ABANDONED))
            self.base[i], self.answers[i] = self.stored.version, None

    @precondition(lambda self: self.stored.reservation_id not in self.inventory.states)
    @rule()
    def forbid(self) -> None:
        """An operator releases a reservation before it is made: its id is used up."""
        self.inventory.release(self.stored.reservation_id)

    @rule()
    def restock(self) -> None:
        self.inventory.stock += 2
        self.goods += 2

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        """A request that was on its way arrives (again), long after its sender gave up."""
        data.draw(st.sampled_from(self.late))()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.inventory.stock >= 0
        assert self.inventory.stock + 2 * self.inventory.kept() == self.goods

    def teardown(self) -> None:
        """Without further faults the saga ends, and both sides agree."""
        if not hasattr(self, "stored"):
            return
        for _ in range(10):
            step = next_step(self.stored)
            if step is None:
                break
            after = advance(self.stored, self._call(step, self.stored)())
            self._save(self.stored.version, after)
        assert self.stored.state in FINAL
        for call in self.late:
            call()
        confirmed = [name for name, state in self.inventory.states.items() if state == "confirmed"]
        if self.stored.state is State.CONFIRMED:
            assert confirmed == [self.stored.reservation_id]
        else:
            assert self.inventory.kept() == 0
        assert self.told.count("order.confirmed") <= 1
        assert self.told.count("order.confirmed") == self.seen.count(Status.CONFIRMED)
        assert self.told.count("order.cancelled") == (self.stored.state is State.CANCELLED)
        assert self.told.count("order.rejected") == (self.stored.state is State.REJECTED)

    def _call(self, step: Step, order: Order) -> Callable[[], Event]:
        name = order.reservation_id
        match step:
            case Step.PRICE:
                return lambda: PRICED
            case Step.RESERVE:
                return lambda: self.inventory.reserve(name)
            case Step.RELEASE:
                return lambda: self.inventory.release(name)

    def _save(self, version: int, after: Order) -> Order | None:
        if self.stored.version != version:
            return None
        before, self.stored = self.stored, replace(after, version=version + 1)
        if (event := announcement(before, self.stored)) is not None:
            self.told.append(event)
        if self.stored.status is not before.status:
            self.seen.append(self.stored.status)
        return self.stored


TestSagaMachine = _SagaMachine.TestCase
TestSagaMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
