"""The relay: takes rows of the outbox and delivers them to their subscribers.

At least once: a row is taken for the time of a lease, delivered outside any transaction, and
marked after the answer. A relay that dies in between leaves the row to the next lease. Several
relays, in one process or many, deliver each row once as long as none of them dies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Tally
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Integer, Row, bindparam, case, exists, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import is_unavailable
from chassis.events.delivery import Delivery, Outcome, short
from chassis.events.metrics import OutboxMetrics
from chassis.events.tables import DEAD, DELIVERED, PENDING, outbox
from chassis.ids import new_id
from chassis.settings import EventSettings
from chassis.workers import STOP_SECONDS

if TYPE_CHECKING:
    from chassis.runtime import Runtime

_METRICS_SECONDS = 5.0
_PURGE_SECONDS = 300.0
_PURGE_BATCH = 1000
_STOP_MARGIN_SECONDS = 1.0
# One look at the table serves the events of this long: each costs transactions of its own.
_GATHER_SECONDS = 0.05

_UNRECORDED = "the outcome of its last try was never recorded"

# Built once: putting a statement together costs more than running it.
_earlier = outbox.alias("earlier")
_DUE = (
    select(outbox.c.subscriber)
    .where(outbox.c.state == PENDING, outbox.c.available_at <= bindparam("at"))
    .distinct()
)
_NEXT = (
    select(outbox)
    .where(
        outbox.c.state == PENDING,
        outbox.c.subscriber == bindparam("wanted"),
        outbox.c.available_at <= bindparam("at"),
        # Order: the first pending one of its key; it stays so while it is delivered.
        ~exists().where(
            _earlier.c.state == PENDING,
            _earlier.c.subscriber == outbox.c.subscriber,
            _earlier.c.ordering_key == outbox.c.ordering_key,
            _earlier.c.seq < outbox.c.seq,
        ),
    )
    .order_by(outbox.c.available_at, outbox.c.seq)
    .limit(bindparam("places", type_=Integer))
    # PostgreSQL: other relays pass over these rows. On SQLite the write transaction
    # (BEGIN IMMEDIATE) keeps them out until the lease is written.
    .with_for_update(skip_locked=True, of=outbox)
)
_TAKE = (
    update(outbox)
    .where(outbox.c.seq.in_(bindparam("taken", expanding=True)))
    # Counted when it begins: a row that kills its relay ends up dead as well.
    .values(
        lease=bindparam("new_lease"),
        attempts=outbox.c.attempts + 1,
        available_at=bindparam("lease_ends"),
    )
)
_GIVE_UP = (
    update(outbox)
    .where(outbox.c.seq.in_(bindparam("taken", expanding=True)))
    .values(
        state=DEAD, lease=None, last_error=bindparam("error"), finished_at=bindparam("ended_at")
    )
)
_RECORD = (
    update(outbox)
    .where(outbox.c.seq == bindparam("taken"), outbox.c.lease == bindparam("held"))
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("tries"),
        lease=None,
        available_at=bindparam("next_at"),
        last_error=bindparam("error"),
        finished_at=bindparam("ended_at"),
    )
    .returning(outbox.c.seq)
)


@dataclass(frozen=True)
class Claim:
    """A row that this relay holds until its lease ends."""

    seq: int
    lease: str
    id: str
    type: str
    subscriber: str
    event: str
    attempts: int


class Relay:
    """Delivers the outbox of one service.

    A subscriber that hangs holds at most `outbox_batch` deliveries of this relay; the others
    have as many of their own. Retries wait a random time up to `outbox_backoff_seconds` times
    two to the power of the tries, at most `outbox_backoff_cap_seconds` (full jitter).
    """

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        if not isinstance(settings, EventSettings):
            raise TypeError("a relay needs EventSettings")
        self._settings = settings
        self._runtime = runtime
        self._database = runtime.database
        self._delivery = Delivery(runtime)
        self._metrics = OutboxMetrics.of(runtime)
        self._log = runtime.log.bind(worker="outbox")
        self._in_flight: Tally[str] = Tally()
        self._tasks: set[asyncio.Task[None]] = set()
        # Twice the longest delivery: time to write the result down before another relay starts.
        self._lease = timedelta(seconds=2 * self._delivery.bound_seconds + 1)
        self._next_metrics = 0.0
        self._next_purge = 0.0

    async def run(self) -> None:
        """Deliver until cancelled. Wakes on commits of this process, polls for those of others.

        When cancelled it takes no more, and lets the deliveries under way end, as long as a worker
        is waited for: one that is cut off is repeated later, and the inbox makes it count once.
        """
        try:
            while True:
                try:
                    await self._housekeeping()
                    for claim in await self._claim():
                        self._start(claim)
                except (DBAPIError, PoolTimeoutError) as error:
                    if not is_unavailable(error):
                        raise
                    self._log.warning("outbox.database_unavailable", error=type(error).__name__)
                    await asyncio.sleep(self._settings.outbox_poll_seconds)
                if await self._database.outbox_written.wait(self._settings.outbox_poll_seconds):
                    await asyncio.sleep(_GATHER_SECONDS)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_SECONDS - _STOP_MARGIN_SECONDS)
            for task in self._tasks:
                task.cancel()

    async def run_once(self) -> int:
        """Deliver what is due now, each row once; return how many rows were tried."""
        tasks = [self._start(claim) for claim in await self._claim()]
        await asyncio.gather(*tasks)
        return len(tasks)

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        self._in_flight[claim.subscriber] += 1
        task = asyncio.create_task(self._finish(claim), name=f"deliver {claim.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _claim(self) -> list[Claim]:
        """Take due rows, of each subscriber as many as it has free places."""
        now = self._runtime.clock.now()
        async with self._database.reading() as session:
            due = (await session.scalars(_DUE, {"at": now})).all()
        free = {name: self._settings.outbox_batch - self._in_flight[name] for name in due}
        claims: list[Claim] = []
        if any(places > 0 for places in free.values()):
            async with self._database.session() as session:
                for subscriber, places in free.items():
                    if places > 0:
                        claims += await self._claim_of(session, subscriber, places, now)
        # What took its last try and was never recorded: its relay died of it, or with it.
        for claim in claims:
            if self._is_spent(claim):
                self._metrics.count(claim.type, DEAD)
                self._tell_dead(claim, _UNRECORDED)
        return [claim for claim in claims if not self._is_spent(claim)]

    def _is_spent(self, claim: Claim) -> bool:
        return claim.attempts > self._settings.outbox_max_attempts

    async def _claim_of(
        self, session: AsyncSession, subscriber: str, places: int, now: datetime
    ) -> list[Claim]:
        wanted = {"wanted": subscriber, "at": now, "places": places}
        rows = (await session.execute(_NEXT, wanted)).all()
        if not rows:
            return []
        lease = new_id()
        claims = [_claim_row(row, lease) for row in rows]
        if spent := [claim.seq for claim in claims if self._is_spent(claim)]:
            await session.execute(_GIVE_UP, {"taken": spent, "error": _UNRECORDED, "ended_at": now})
        if taken := [claim.seq for claim in claims if not self._is_spent(claim)]:
            await session.execute(
                _TAKE, {"taken": taken, "new_lease": lease, "lease_ends": now + self._lease}
            )
        return claims

    async def _finish(self, claim: Claim) -> None:
        """Deliver one row and write the result down."""
        try:
            await self._record(claim, await self._send(claim))
        except Exception:  # noqa: BLE001  (whatever it was, the other rows go on)
            # The lease runs out and the row is tried again, as often as it may be taken.
            self._log.exception("outbox.not_recorded", event_id=claim.id)
        finally:
            self._in_flight[claim.subscriber] -= 1
            # A place is free, and the next event of the key may go.
            self._database.outbox_written.set()

    async def _send(self, claim: Claim) -> Outcome:
        try:
            return await self._delivery.send(claim.subscriber, claim.event)
        except Exception as error:  # noqa: BLE001  (a row that cannot be sent must end as well)
            self._log.exception("outbox.delivery_failed", event_id=claim.id)
            return Outcome(delivered=False, error=short(error))

    async def _record(self, claim: Claim, outcome: Outcome) -> None:
        now = self._runtime.clock.now()
        # A call that was not sent is no try: the breaker is open, or no token could be had.
        attempts = claim.attempts if outcome.sent else claim.attempts - 1
        state, available_at = DELIVERED, now
        if not outcome.delivered:
            given_up = outcome.poison or attempts >= self._settings.outbox_max_attempts
            state = DEAD if given_up else PENDING
            available_at = now + self._pause(attempts, outcome.retry_after)
        async with self._database.session() as session:
            values = {
                "taken": claim.seq,
                "held": claim.lease,
                "new_state": state,
                "tries": attempts,
                "next_at": available_at,
                "error": outcome.error,
                "ended_at": None if state == PENDING else now,
            }
            result = await session.execute(_RECORD, values)
            recorded = result.first() is not None
        if not recorded:
            self._log.warning("outbox.lease_lost", event_id=claim.id)
            return
        self._metrics.count(claim.type, state if state != PENDING else "retry")
        if state == DEAD:
            self._tell_dead(claim, outcome.error)

    def _tell_dead(self, claim: Claim, error: str | None) -> None:
        self._log.error("outbox.dead", event_id=claim.id, subscriber=claim.subscriber, error=error)

    def _pause(self, attempts: int, retry_after: float | None) -> timedelta:
        cap = self._settings.outbox_backoff_cap_seconds
        doublings = min(max(attempts - 1, 0), 60)
        bound = min(cap, self._settings.outbox_backoff_seconds * 2.0**doublings)
        seconds = random.uniform(0, bound)  # noqa: S311  (jitter, no secret)
        if retry_after is not None:
            seconds += min(retry_after, cap)
        return timedelta(seconds=seconds)

    async def _housekeeping(self) -> None:
        now = self._runtime.clock.monotonic()
        if now >= self._next_metrics:
            self._next_metrics = now + _METRICS_SECONDS
            await self.update_metrics()
        if now >= self._next_purge:
            self._next_purge = now + _PURGE_SECONDS
            await self.purge()

    async def update_metrics(self) -> None:
        """Read the gauges from the table."""
        async with self._database.reading() as session:
            row = (
                await session.execute(
                    select(
                        func.count(case((outbox.c.state == PENDING, 1))).label("pending"),
                        func.count(case((outbox.c.state == DEAD, 1))).label("dead"),
                        func.min(case((outbox.c.state == PENDING, outbox.c.created_at))).label(
                            "oldest"
                        ),
                    ).where(outbox.c.state.in_((PENDING, DEAD)))
                )
            ).one()
        age = 0.0
        if row.oldest is not None:
            age = max(0.0, (self._runtime.clock.now() - row.oldest).total_seconds())
        self._metrics.observe(pending=row.pending, dead=row.dead, oldest_age_seconds=age)

    async def purge(self) -> int:
        """Delete delivered rows older than `outbox_retention_seconds`; return how many."""
        before = self._runtime.clock.now() - timedelta(
            seconds=self._settings.outbox_retention_seconds
        )
        total = 0
        while True:
            async with self._database.session() as session:
                old = (
                    select(outbox.c.seq)
                    .where(outbox.c.state == DELIVERED, outbox.c.finished_at < before)
                    .limit(_PURGE_BATCH)
                    .scalar_subquery()
                )
                gone = await session.scalars(
                    outbox.delete().where(outbox.c.seq.in_(old)).returning(outbox.c.seq)
                )
                deleted = len(gone.all())
            total += deleted
            if deleted < _PURGE_BATCH:
                return total


def _claim_row(row: Row[tuple[object, ...]], lease: str) -> Claim:
    return Claim(
        seq=row.seq,
        lease=lease,
        id=row.id,
        type=row.type,
        subscriber=row.subscriber,
        event=row.event,
        attempts=row.attempts + 1,
    )
