"""Background loops of a service, supervised: a loop that fails or ends is started again.

The wait between starts doubles from 0.5 s to 30 s and falls back after a quiet minute. While a
loop waits, the process is not ready; `background_worker_restarts_total{worker}` counts.

A database that is away stops a loop too, but says nothing against this process: it stays ready
(else one outage would take every replica out at once), and the waits stay short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import Counter

from chassis.database import is_unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.runtime import Runtime

Worker = Callable[["Runtime"], Awaitable[None]]

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LONGEST_WAIT_FOR_DATABASE = 2.0
QUIET = 60.0
STOP_SECONDS = 5.0
"""How long a cancelled loop may take to end."""


class Supervisor:
    """Runs the loops of one process from `start` to `stop`."""

    def __init__(self, runtime: Runtime, workers: Mapping[str, Worker]) -> None:
        self._runtime = runtime
        self._workers = dict(workers)
        self._tasks: list[asyncio.Task[None]] = []
        self._restarts = Counter(
            "background_worker_restarts",
            "Starts of a background loop after it failed or ended.",
            ["worker"],
            registry=runtime.registry,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops inside the block; leaving cancels them and waits for their end."""
        for name, worker in self._workers.items():
            self._restarts.labels(name)
            self._tasks.append(
                asyncio.create_task(self._supervise(name, worker), name=f"worker:{name}")
            )
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                _, stuck = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
                for task in stuck:
                    self._runtime.log.error("worker.stuck", worker=task.get_name())
            self._tasks.clear()

    async def _supervise(self, name: str, worker: Worker) -> None:
        clock, lifecycle = self._runtime.clock, self._runtime.lifecycle
        log = self._runtime.log.bind(worker=name)
        wait = FIRST_WAIT
        while True:
            began = clock.monotonic()
            database_away = False
            try:
                await worker(self._runtime)
                log.error("worker.ended", detail="a background loop must not return")
            except Exception as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # Cancelled, and the loop made another error of it: it must not start again.
                    raise asyncio.CancelledError from None
                database_away = is_unavailable(error)
                if database_away:
                    log.warning("worker.database_unavailable", error=type(error).__name__)
                else:
                    log.exception("worker.failed")
            if clock.monotonic() - began >= QUIET:
                wait = FIRST_WAIT
            if not database_away:
                lifecycle.dead_workers.add(name)
            await clock.sleep(wait)
            lifecycle.dead_workers.discard(name)
            self._restarts.labels(name).inc()
            wait = min(wait * 2, LONGEST_WAIT_FOR_DATABASE if database_away else LONGEST_WAIT)
