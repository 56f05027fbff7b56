"""The pool of connections: measured, and safe when who wants a connection is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from prometheus_client import Histogram
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.util import await_only, greenlet_spawn


class Checkouts:
    """Takes connections from pools in tasks of their own.

    Opening and testing a connection takes several awaits. A cancellation in the middle, and again
    while the first one is handled, leaves the connection to the garbage collector and its place in
    the pool taken until then. So the taking goes on, and the connection is given back when there.
    """

    def __init__(self, histogram: Histogram | None = None) -> None:
        self._histogram = histogram
        self._tasks: set[asyncio.Task[None]] = set()

    def pool_class(self) -> type[AsyncAdaptedQueuePool]:
        """Return the pool class to make engines with."""
        checkouts = self

        class MeasuredPool(AsyncAdaptedQueuePool):
            def connect(self) -> PoolProxiedConnection:
                start = time.perf_counter()
                try:
                    if self.checkedin() and not self._pre_ping:
                        return super().connect()  # at hand: nothing is awaited
                    return checkouts.take(super().connect)
                finally:
                    checkouts.observe(time.perf_counter() - start)

        return MeasuredPool

    def observe(self, seconds: float) -> None:
        """Note how long a connection was waited for."""
        if self._histogram is not None:
            self._histogram.observe(seconds)

    def take(self, connect: Callable[[], PoolProxiedConnection]) -> PoolProxiedConnection:
        """Call `connect`, to its end even if the caller is cancelled."""
        task = asyncio.ensure_future(greenlet_spawn(connect))
        try:
            connection: PoolProxiedConnection = await_only(asyncio.shield(task))
        except asyncio.CancelledError:
            returning = asyncio.ensure_future(_give_back(task))
            self._tasks.add(returning)
            returning.add_done_callback(self._tasks.discard)
            raise
        return connection

    async def settle(self) -> None:
        """Wait until connections that nobody wants any more are back."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


async def _give_back(task: asyncio.Future[PoolProxiedConnection]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await greenlet_spawn(task.result().close)
