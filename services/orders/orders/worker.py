"""The background loops: finishing what a request left, and the gauges of what waits."""

from datetime import timedelta

import anyio

from chassis.database import run_transaction
from chassis.runtime import Runtime
from orders import store
from orders.domain import Order
from orders.driver import Driver
from orders.metrics import OrderMetrics
from orders.peers import Peers
from orders.saga import next_step
from orders.settings import Settings

_GAUGE_SECONDS = 5.0


class Recovery:
    """Takes due orders and drives them, in every process at once.

    While a peer is away one order after the other is tried, not all of them; with each one that
    succeeds the width doubles again. Orders that were not tried keep their place, so the backlog
    goes as soon as the peer is back.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        driver: Driver,
        peers: Peers,
        metrics: OrderMetrics,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._driver = driver
        self._peers = peers
        self._metrics = metrics
        self._width = settings.saga_batch

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            if not await self.run_once():
                await self._driver.wake.wait(self._settings.saga_poll_seconds)

    async def run_once(self) -> int:
        """Drive one batch of due orders; return how many of them came to rest."""
        orders = await self._lease()
        if orders:
            self._peers.probe()
        settled: list[bool] = []

        async def drive(order: Order) -> None:
            try:
                order = await self._driver.drive(order)
            except Exception:
                # The order is put off with a delay; the others must not wait for it.
                self._runtime.log.exception("saga.failed", order_id=order.id)
            settled.append(next_step(order) is None)

        async with anyio.create_task_group() as tasks:
            for order in orders:
                tasks.start_soon(drive, order)
        if not all(settled):
            self._width = 1
        elif settled:
            self._width = min(self._width * 2, self._settings.saga_batch)
        self._metrics.recovered.inc(sum(settled))
        return sum(settled)

    async def _lease(self) -> list[Order]:
        now = self._runtime.clock.now()
        database = self._runtime.database
        async with database.reading() as session:
            if not await store.any_due(session, now):
                return []
        return await run_transaction(
            database,
            lambda session: store.lease_due(
                session,
                owner=self._driver.name,
                now=now,
                until=now + timedelta(seconds=self._settings.saga_lease_seconds),
                limit=self._width,
            ),
        )


async def watch(runtime: Runtime, metrics: OrderMetrics) -> None:
    """Keep the gauges of the backlog current, until cancelled."""
    while True:
        async with runtime.database.reading() as session:
            count, oldest = await store.backlog(session)
        metrics.pending.set(count)
        age = 0.0 if oldest is None else (runtime.clock.now() - oldest).total_seconds()
        metrics.oldest.set(max(0.0, age))
        await runtime.clock.sleep(_GAUGE_SECONDS)
