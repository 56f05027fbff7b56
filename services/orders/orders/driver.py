"""Drives the saga of one order: makes its steps, stores each change, hands it on when stuck.

Whoever drives an order holds its lease. Every write is guarded by the version that it started
from, so a holder who lost the lease writes nothing. No transaction is open during a call.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import anyio
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import Clock
from chassis.database import Signal, after_commit, run_transaction
from chassis.http import Deadline, PeerError, current_deadline
from chassis.http.deadline import reset_deadline, set_deadline
from chassis.ids import new_id
from chassis.runtime import Runtime
from chassis.security.tokens import MissingClientSecretError
from orders import store
from orders.domain import Line, Order, Reason, State, Status
from orders.metrics import OrderMetrics
from orders.peers import Peers, UnexpectedAnswerError
from orders.saga import (
    Abandoned,
    CancelAsked,
    HoldLost,
    Priced,
    advance,
    next_step,
    retry_delay,
)
from orders.settings import Settings

Write = Callable[[AsyncSession, Order], Awaitable[bool]]
"""Writes more (the answer for a repeated request) in the transaction that ends a drive.

It tells whether the buyer is waiting for that answer, so that no event has to bring it.
"""

GAVE_UP = "peer-unavailable"
"""The reason of an order that waited for a peer longer than the bound."""

# A call may take this share of the lease that it runs under; the rest is for the write after it.
_LEASE_SHARE = 0.5
_LET_GO_SECONDS = 2.0


async def _nobody_waits(_session: AsyncSession, _order: Order) -> bool:
    return False


@contextmanager
def time_limit(seconds: float, clock: Clock) -> Iterator[None]:
    """Limit the calls inside to `seconds` together; later ones raise `DeadlineExceeded`.

    A request's own deadline stays in force where it is earlier.
    """
    limit, outer = Deadline.after(seconds, clock), current_deadline()
    token = set_deadline(limit if outer is None else min(limit, outer))
    try:
        yield
    finally:
        reset_deadline(token)


class Driver:
    """The saga's hands in one process; `name` is the owner of its leases."""

    def __init__(
        self, runtime: Runtime, settings: Settings, peers: Peers, metrics: OrderMetrics
    ) -> None:
        self.name = f"{settings.instance[:24]}/{new_id()}"
        self.wake = Signal()
        self._runtime = runtime
        self._clock = runtime.clock
        self._settings = settings
        self._peers = peers
        self._metrics = metrics

    def place(self, owner: str, lines: tuple[Line, ...], priced: Priced | None) -> Order:
        """Return a new pending order, leased to this process, not stored yet."""
        now = self._clock.now()
        order = Order(
            id=new_id(),
            owner=owner,
            state=State.PENDING,
            lines=lines,
            created_at=now,
            updated_at=now,
        )
        order = order if priced is None else advance(order, priced)
        return self.leased(order)

    async def add(self, session: AsyncSession, order: Order) -> None:
        """Store a new order and count it once it is committed."""
        await store.add(session, order)
        after_commit(session, self._metrics.reached.labels(order.status.value).inc)

    async def cancel(self, order_id: str, owner: str) -> Order | None:
        """Ask for the cancellation and carry it out as far as the peers allow.

        Returns:
            The order, cancelled or cancelling; None when the owner has no such order.

        Raises:
            IllegalTransitionError: the order was rejected; there is nothing to cancel.
        """
        while True:
            try:
                order, ours = await run_transaction(
                    self._runtime.database, lambda session: self._ask(session, order_id, owner)
                )
            except store.StaleOrderError:
                continue  # the saga moved on between our read and our write: look again
            return await self.drive(order) if order is not None and ours else order

    async def _ask(
        self, session: AsyncSession, order_id: str, owner: str
    ) -> tuple[Order | None, bool]:
        order = await store.load(session, order_id, owner=owner)
        if order is None:
            return None, False
        after = advance(order, CancelAsked())
        if after is order:
            return order, False
        # This takes the lease from whoever is placing the order: their next write fails, and
        # the release that follows here makes inventory refuse what they may still ask of it.
        after = await self._write(session, order, self._onward(after))
        return after, next_step(after) is not None

    async def drive(
        self, order: Order, *, inline_seconds: float | None = None, write: Write = _nobody_waits
    ) -> Order:
        """Bring a leased order as far as the peers allow, and give the lease back.

        Args:
            order: the order as stored, leased to this process.
            inline_seconds: set while a client waits: the time that all calls may take together.
                The drive then ends as soon as the order is no longer pending; what is left (the
                release of a refused reservation) is the worker's.
            write: runs in the transaction that ends the drive.

        Returns:
            The order as it is stored now; someone else may have changed it meanwhile.
        """
        stored = order
        until = None if inline_seconds is None else self._clock.monotonic() + inline_seconds
        try:
            while True:
                order = await self._step(order, until)
                if until is not None and order.status is not Status.PENDING:
                    order = self._left(order)
                if order.lease_owner is None:
                    return await self._save(stored, order, write)
                order = stored = await self._save(stored, order)
        except store.StaleOrderError:
            return await self._reload(order.id, write)
        except BaseException as exc:
            # A client that left or a process that ends: the next one may begin at once.
            await self._let_go(stored, at_once=not isinstance(exc, Exception))
            raise

    async def _step(self, order: Order, until: float | None) -> Order:
        """Make the next call and return the order after it, put off if no answer came."""
        step = next_step(order)
        if step is None:
            return self._onward(order)
        seconds = self._settings.saga_lease_seconds * _LEASE_SHARE
        if until is not None:
            seconds = min(seconds, until - self._clock.monotonic())
        try:
            with time_limit(seconds, self._clock):
                event = await self._peers.perform(step, order)
        except (PeerError, UnexpectedAnswerError, MissingClientSecretError) as exc:
            self._metrics.retries.labels(step.value).inc()
            # A peer that is away comes back by itself; a mistake of the deployment does not.
            level = "info" if isinstance(exc, PeerError) else "error"
            getattr(self._runtime.log, level)(
                "saga.put_off",
                order_id=order.id,
                step=step.value,
                attempt=order.attempt,
                why=str(exc),
            )
            return self._put_off(order)
        after = advance(order, event)
        # A lost hold is rare; going round by the worker keeps a confused peer from a tight loop.
        return self._put_off(after) if isinstance(event, HoldLost) else self._onward(after)

    def _onward(self, order: Order) -> Order:
        """Return the order leased for its next step, or at rest if there is none."""
        if next_step(order) is None:
            return self._left(order)
        return self.leased(order)

    def leased(self, order: Order) -> Order:
        """Return the order leased to this process; due at once if the process dies."""
        now = self._clock.now()
        until = now + timedelta(seconds=self._settings.saga_lease_seconds)
        return replace(
            order, lease_owner=self.name, lease_until=until, next_attempt_at=now, updated_at=now
        )

    def _left(self, order: Order, delay: float = 0.0) -> Order:
        """Return the order without a lease, due after `delay` seconds if anything is left to do."""
        now = self._clock.now()
        due = None if next_step(order) is None else now + timedelta(seconds=delay)
        return replace(
            order, lease_owner=None, lease_until=None, next_attempt_at=due, updated_at=now
        )

    def _put_off(self, order: Order) -> Order:
        """Return the order due later; given up if it has waited for longer than the bound.

        Only an order without stock can be given up: a release is tried until it succeeds.
        """
        age = (self._clock.now() - order.created_at).total_seconds()
        if order.status is Status.PENDING and age > self._settings.saga_give_up_seconds:
            detail = f"The order could not be finished within {age:.0f} seconds."
            return self._left(advance(order, Abandoned(Reason(GAVE_UP, detail))))
        delay = retry_delay(
            order.attempt,
            base=self._settings.saga_backoff_seconds,
            cap=self._settings.saga_backoff_cap_seconds,
            spread=random.random(),  # noqa: S311  (jitter, no secret)
        )
        return self._left(replace(order, attempt=order.attempt + 1), delay)

    async def _save(self, before: Order, after: Order, write: Write = _nobody_waits) -> Order:
        async def work(session: AsyncSession) -> Order:
            answered = await write(session, after)
            return await self._write(session, before, after, answered=answered)

        saved = await run_transaction(self._runtime.database, work)
        if saved.lease_owner is None and saved.next_attempt_at is not None and not saved.attempt:
            self.wake.set()
        return saved

    async def _write(
        self, session: AsyncSession, before: Order, after: Order, *, answered: bool = False
    ) -> Order:
        saved = await store.save(session, before, after, answered=answered)
        if saved.status is not before.status:
            after_commit(session, self._metrics.reached.labels(saved.status.value).inc)
        if saved.reason is not before.reason and saved.reason and saved.reason.code == GAVE_UP:
            after_commit(session, self._metrics.abandoned.inc)
        return saved

    async def _reload(self, order_id: str, write: Write) -> Order:
        """Return what another process made of the order, and answer with that."""

        async def work(session: AsyncSession) -> Order:
            order = await store.load(session, order_id)
            assert order is not None  # orders are never deleted
            await write(session, order)
            return order

        return await run_transaction(self._runtime.database, work)

    async def _let_go(self, stored: Order, *, at_once: bool) -> None:
        """Give the lease back on the way out; if that fails too, the lease runs out by itself."""
        with anyio.move_on_after(_LET_GO_SECONDS, shield=True):
            try:
                await self._save(stored, self._left(stored) if at_once else self._put_off(stored))
            except store.StaleOrderError:
                pass
            except Exception:
                self._runtime.log.exception("saga.lease_not_returned", order_id=stored.id)
