"""Adaptive micro-batching: what waits while one batch computes is the next batch.

An idle model computes a request at once. Under load requests gather by themselves, because a batch
takes hardly longer than a row. Batches of one model follow each other; the computing is done in a
bounded pool of threads, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chassis.clock import Clock
from chassis.http.deadline import Deadline
from chassis.logs import get_logger
from predict.features import Matrix
from predict.metrics import ModelMetrics
from predict.runtimes import ModelError, Outputs, Run

_log = get_logger("predict.batcher")


class QueueFullError(Exception):
    """More rows wait for the model than may."""


class ExpiredError(Exception):
    """The caller's time was over before its rows were computed."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Rows in one batch and rows that may wait; `delay` in seconds."""

    rows: int
    queue: int
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    rows: Matrix
    since: float
    deadline: Deadline | None
    done: asyncio.Future[Outputs] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    queued: bool = True


class Batcher:
    """The queue of one version of one model."""

    def __init__(
        self,
        run: Run,
        *,
        executor: Executor,
        limits: BatchLimits,
        clock: Clock,
        metrics: ModelMetrics,
    ) -> None:
        self._run = run
        self._executor = executor
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._queued_rows = 0
        self._worker: asyncio.Task[None] | None = None

    @property
    def queued_rows(self) -> int:
        """How many rows wait."""
        return self._queued_rows

    async def submit(self, rows: Matrix, deadline: Deadline | None = None) -> Outputs:
        """Compute `rows`, possibly together with those of others, and return their outputs.

        A caller that is cancelled is forgotten; the others of its batch are not disturbed.

        Raises:
            QueueFullError: too many rows wait already.
            ExpiredError: `deadline` passed first.
            ModelError: the model failed on these rows.
        """
        if self._queued_rows + len(rows) > self._limits.queue:
            raise QueueFullError
        entry = _Waiting(rows, self._clock.monotonic(), deadline)
        self._queue.append(entry)
        self._queued_rows += len(rows)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="predict:batches")
        try:
            if deadline is None:
                return await entry.done
            async with asyncio.timeout(deadline.remaining(self._clock)):
                return await entry.done
        except TimeoutError:
            raise ExpiredError from None
        finally:
            if entry.queued:  # given up: its place is free at once, however long the batch takes
                self._queue.remove(entry)
                self._left(entry)

    async def _work(self) -> None:
        """Compute until nothing waits. There is one such task at most, and none while idle."""
        try:
            while self._queue:
                if self._limits.delay and self._queued_rows < self._limits.rows:
                    await self._clock.sleep(self._limits.delay)
                if batch := self._take():
                    await self._compute(batch)
        finally:
            self._worker = None
            for entry in self._queue:  # only when this task itself was cancelled
                entry.done.cancel()

    def _left(self, entry: _Waiting) -> None:
        entry.queued = False
        self._queued_rows -= len(entry.rows)

    def _take(self) -> list[_Waiting]:
        """Take what fits into one batch, at least one entry; drop who no longer waits."""
        batch: list[_Waiting] = []
        rows = 0
        now = self._clock.monotonic()
        while self._queue:
            entry = self._queue[0]
            size = len(entry.rows)
            gone = entry.done.done()  # cancelled just now
            if batch and not gone and rows + size > self._limits.rows:
                break
            self._queue.popleft()
            self._left(entry)
            if gone:
                continue
            if entry.deadline is not None and entry.deadline.at <= now:
                entry.done.set_exception(ExpiredError())
                continue
            self._metrics.waited(now - entry.since)
            batch.append(entry)
            rows += size
        return batch

    async def _compute(self, batch: Sequence[_Waiting]) -> None:
        whole = batch[0].rows if len(batch) == 1 else np.concatenate([each.rows for each in batch])
        self._metrics.batch(len(whole))
        loop = asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self._executor, self._run, whole)
        except Exception as error:  # noqa: BLE001  (whatever a model raises is told to its callers)
            await self._failed(batch, error)
            return
        sound = _sound(outputs, len(whole))
        at = 0
        for entry in batch:
            after = at + len(entry.rows)
            if entry.done.done():
                pass
            elif sound[at:after].all():
                entry.done.set_result({key: array[at:after] for key, array in outputs.items()})
            else:
                entry.done.set_exception(ModelError("it gave no finite number for these rows"))
            at = after

    async def _failed(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Try each entry alone, so that one caller's rows do not fail those of the others."""
        if len(batch) > 1:
            for entry in batch:
                if not entry.done.done():
                    await self._compute([entry])
            return
        if not isinstance(error, ModelError):
            _log.error("model.failed", error=type(error).__name__, detail=str(error)[:500])
            error = ModelError(type(error).__name__)
        if not batch[0].done.done():
            batch[0].done.set_exception(error)


def _sound(outputs: Outputs, rows: int) -> NDArray[np.bool_]:
    """Say of each row whether all its outputs are numbers."""
    sound = np.ones(rows, dtype=np.bool_)
    for array in outputs.values():
        if len(array) != rows:
            return np.zeros(rows, dtype=np.bool_)
        finite = np.isfinite(array)
        sound &= finite if array.ndim == 1 else finite.all(axis=1)
    return sound
