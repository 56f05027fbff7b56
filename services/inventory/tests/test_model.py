"""The inventory against a model that is too simple to be wrong (Hypothesis, stateful)."""

import asyncio
from datetime import UTC, datetime, timedelta

import hypothesis
from hypothesis import HealthCheck, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from chassis.database import Database, run_transaction
from inventory import models, reservations, stock
from inventory.audit import audit
from inventory.expiry import expire_due
from inventory.reservations import (
    InsufficientStockError,
    LinesDifferError,
    State,
    UnknownReservationError,
)
from inventory.stock import Cause, StockHeldError

ITEMS = ("a", "b", "c")
item = strategies.sampled_from(ITEMS)
reservation = strategies.sampled_from([f"r{number}" for number in range(6)])
wanted = strategies.dictionaries(item, strategies.integers(1, 6), min_size=1)


class Inventory(RuleBasedStateMachine):
    """Sends random requests to the real inventory and to dictionaries, and compares."""

    def __init__(self, database_settings):
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(database_settings)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.on_hand = {}
        # id -> [state, lines, expires_at]
        self.made = {}
        self.run(self._empty())

    def run(self, coroutine):
        """Run a coroutine to its end."""
        return self.runner.run(coroutine)

    def transaction(self, function):
        """Run a function in a transaction."""
        return self.run(run_transaction(self.database, function))

    async def _empty(self):
        async with self.database.session() as session:
            for table in reversed(models.metadata.sorted_tables):
                await session.execute(table.delete())

    def teardown(self):
        """Close the database."""
        self.run(self.database.close())
        self.runner.close()

    # The model.

    def held(self, name):
        """Return how many units of an item are promised."""
        return sum(lines.get(name, 0) for state, lines, _ in self.made.values() if state == "held")

    def expire(self, name):
        """End a reservation if its time is over."""
        if self.made[name][0] == "held" and self.made[name][2] <= self.now:
            self.made[name][0] = "expired"

    # What anybody may do.

    @rule(name=item, count=strategies.integers(0, 12))
    def set_level(self, name, count):
        """Fewer than are held is refused."""
        try:
            self.transaction(lambda s: stock.set_level(s, name, count, Cause(self.now)))
        except StockHeldError:
            assert count < self.held(name)
        else:
            assert count >= self.held(name)
            self.on_hand[name] = count

    @rule(name=item, count=strategies.integers(1, 5))
    def restock(self, name, count):
        """Units that arrive are there."""
        level = self.transaction(lambda s: stock.restock(s, name, count, Cause(self.now)))
        self.on_hand[name] = self.on_hand.get(name, 0) + count
        assert level.on_hand == self.on_hand[name]

    @rule(name=reservation, lines=wanted, seconds=strategies.integers(1, 30))
    def reserve(self, name, lines, seconds):
        """All or nothing, once; what ended stays ended."""
        until = self.now + timedelta(seconds=seconds)
        before = self.made.get(name)
        free = {each: self.on_hand.get(each, 0) - self.held(each) for each in lines}
        short = sorted(each for each in lines if lines[each] > free[each])
        try:
            step = self.transaction(
                lambda s: reservations.reserve(s, name, lines, until, Cause(self.now))
            )
        except LinesDifferError:
            assert before is not None
            assert before[1]
            assert before[1] != lines
        except InsufficientStockError as error:
            found = {each.item_id: each.available for each in error.shortages}
            assert before is None
            assert found == {each: free[each] for each in short}
        else:
            if before is None:
                assert step.changed
                assert not short
                self.made[name] = ["held", lines, until]
            else:
                assert not before[1] or before[1] == lines
                self.expire(name)
            assert step.reservation.state == self.made[name][0]

    @rule(name=reservation)
    def confirm(self, name):
        """Held units leave the stock once."""
        try:
            step = self.transaction(lambda s: reservations.confirm(s, name, Cause(self.now)))
        except UnknownReservationError:
            assert name not in self.made
            return
        self.expire(name)
        state, lines, _ = self.made[name]
        if state == "held":
            self.made[name][0] = "confirmed"
            for each, count in lines.items():
                self.on_hand[each] -= count
        assert step.reservation.state == self.made[name][0]

    @rule(name=reservation)
    def release(self, name):
        """Units come back once, and an unknown id is remembered."""
        step = self.transaction(lambda s: reservations.release(s, name, Cause(self.now)))
        state, lines, _ = self.made.setdefault(name, ["released", {}, self.now])
        if state == "held":
            self.made[name][0] = "released"
        elif state == "confirmed":
            self.made[name][0] = "returned"
            for each, count in lines.items():
                self.on_hand[each] += count
        assert step.reservation.state == self.made[name][0]

    @rule(seconds=strategies.integers(1, 20))
    def wait(self, seconds):
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    @rule()
    def expire_all(self):
        """The worker ends exactly what is due."""
        held = [name for name, made in self.made.items() if made[0] == "held"]
        due = [name for name in held if self.made[name][2] <= self.now]
        assert self.run(expire_due(self.database, self.now, limit=100)) == len(due)
        for name in due:
            self.expire(name)

    # What must always be so.

    @invariant()
    def stock_is_as_in_the_model(self):
        """No unit is lost, invented or oversold."""

        async def levels():
            async with self.database.reading() as session:
                rows = await session.execute(select(models.stock))
                return {row.item_id: (row.on_hand, row.held) for row in rows}

        expected = {name: (count, self.held(name)) for name, count in self.on_hand.items()}
        assert self.run(levels()) == expected
        assert all(0 <= held <= on_hand for on_hand, held in expected.values())

    @invariant()
    def reservations_are_as_in_the_model(self):
        """Every reservation is in the state of the model."""

        async def states():
            async with self.database.reading() as session:
                return [
                    (await reservations.get(session, name, self.now)).state for name in self.made
                ]

        expected = [
            State.EXPIRED if state == "held" and until <= self.now else State(state)
            for state, _, until in self.made.values()
        ]
        assert self.run(states()) == expected

    @invariant()
    def the_ledger_adds_up(self):
        """The audit finds nothing."""
        assert self.run(audit(self.database)).mismatches == []


def test_any_sequence_of_requests_keeps_to_the_model(settings):
    """Every state of every reservation, the stock and the ledger, after every step."""
    run_state_machine_as_test(
        lambda: Inventory(settings),
        settings=hypothesis.settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
