"""The queue of a model: everyone gets the answer to their own rows, whatever happens to others."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from chassis.http.deadline import Deadline
from chassis.testing import FakeClock
from predict.batcher import Batcher, BatchLimits, ExpiredError, QueueFullError
from predict.metrics import PredictMetrics
from predict.runtimes import ModelError


class Bench:
    """A batcher over a function that keeps the sizes of its batches, and may be held."""

    def __init__(self, rows: int = 8, queue: int = 1000, delay: float = 0.0) -> None:
        self.clock = FakeClock()
        self.executor = ThreadPoolExecutor(1)
        self.sizes: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.batcher = Batcher(
            self.run,
            executor=self.executor,
            limits=BatchLimits(rows, queue, delay),
            clock=self.clock,
            metrics=PredictMetrics(CollectorRegistry()).of("m", "1"),
        )

    def run(self, matrix: Any) -> dict[str, Any]:
        """Double the first column; 13 is a row that no model can bear, 14 gives no number."""
        assert self.free.wait(10)
        self.sizes.append(len(matrix))
        if (matrix[:, 0] == 13).any():
            raise ValueError("unlucky")
        value = matrix[:, 0] * 2
        value[matrix[:, 0] == 14] = np.nan
        return {"value": value}

    async def ask(self, *values: float, deadline: Deadline | None = None) -> list[float]:
        """Submit rows and return their values."""
        rows = np.array(values, dtype=np.float64).reshape(-1, 1)
        found: list[float] = (await self.batcher.submit(rows, deadline))["value"].tolist()
        return found

    async def started(self, waiting: int) -> None:
        """Let tasks run until so many rows wait."""
        async with asyncio.timeout(60):
            while self.batcher.queued_rows != waiting:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    made: list[Bench] = []

    def make(**limits: Any) -> Bench:
        made.append(Bench(**limits))
        request.addfinalizer(lambda: (made[-1].free.set(), made[-1].executor.shutdown()))
        return made[-1]

    return make


sizes = st.lists(st.integers(min_value=1, max_value=12), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, limit=st.integers(1, 10), cancelled=st.sets(st.integers(0, 24)))
def test_everyone_gets_their_own_rows(sizes: list[int], limit: int, cancelled: set[int]) -> None:
    """Any requests, any limit, some of them given up: order, sizes and sums are right."""

    async def scenario() -> None:
        bench = Bench(rows=limit)
        bench.free.clear()
        asked = [[float(100 * number + row) for row in range(n)] for number, n in enumerate(sizes)]
        tasks = [asyncio.create_task(bench.ask(*each)) for each in asked]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone = cancelled & set(range(len(tasks)))
        for number in gone:
            tasks[number].cancel()
        bench.free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number in gone:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == [each * 2 for each in asked[number]]
        assert all(size <= max(limit, *sizes) for size in bench.sizes)
        whole = sum(len(each) for n, each in enumerate(asked) if n not in gone)
        # The batch that ran when the others gave up may hold rows of some of those.
        assert whole <= sum(bench.sizes) <= sum(sizes)
        assert bench.batcher.queued_rows == 0
        bench.executor.shutdown()

    asyncio.run(scenario())


async def test_idle_nothing_waits_and_loaded_requests_gather(bench: Any) -> None:
    """The first request is a batch of one; what came meanwhile is the next, up to the limit."""
    box = bench(rows=8)
    box.free.clear()
    first = asyncio.create_task(box.ask(1))
    await asyncio.sleep(0)
    await box.started(0)
    others = [asyncio.create_task(box.ask(100.0 + n)) for n in range(20)]
    await box.started(20)
    box.free.set()
    assert await first == [2.0]
    assert await asyncio.gather(*others) == [[200.0 + 2 * n] for n in range(20)]
    assert box.sizes == [1, 8, 8, 4]


async def test_a_request_larger_than_a_batch_runs_alone(bench: Any) -> None:
    """It is not split, and it does not wait for ever."""
    box = bench(rows=4)
    answers = await asyncio.gather(box.ask(1), box.ask(*range(10)), box.ask(2))
    assert answers == [[2.0], [2.0 * n for n in range(10)], [4.0]]
    assert box.sizes == [1, 10, 1]


async def test_a_full_queue_refuses_at_once(bench: Any) -> None:
    """Nothing of the refused request stays behind."""
    box = bench(rows=1, queue=3)
    box.free.clear()
    first = asyncio.create_task(box.ask(0))
    await asyncio.sleep(0)
    await box.started(0)
    waiting = [asyncio.create_task(box.ask(1)), asyncio.create_task(box.ask(2, 3))]
    await box.started(3)
    with pytest.raises(QueueFullError):
        await box.ask(4)
    box.free.set()
    assert await asyncio.gather(first, *waiting) == [[0.0], [2.0], [4.0, 6.0]]
    assert await box.ask(5) == [10.0]


async def test_who_gives_up_leaves_the_queue_at_once(bench: Any) -> None:
    """While the batch before still computes: others get the place, the rows are not computed."""
    box = bench(rows=1, queue=3)
    box.free.clear()
    first = asyncio.create_task(box.ask(0))
    await asyncio.sleep(0)
    await box.started(0)
    impatient = asyncio.create_task(box.ask(1, 2, 3))
    await box.started(3)
    with pytest.raises(QueueFullError):
        await box.ask(4)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert box.batcher.queued_rows == 0
    with pytest.raises(ExpiredError):
        await box.ask(5, 6, deadline=Deadline.after(0.01, box.clock))
    assert box.batcher.queued_rows == 0
    second = asyncio.create_task(box.ask(7, 8, 9))
    await box.started(3)
    box.free.set()
    assert await asyncio.gather(first, second) == [[0.0], [14.0, 16.0, 18.0]]
    assert box.sizes == [1, 3]


async def test_an_expired_request_is_not_computed(bench: Any) -> None:
    """Its time passed in the queue: the model does not work for nobody."""
    box = bench(rows=8)
    box.free.clear()
    first = asyncio.create_task(box.ask(1))
    await asyncio.sleep(0)
    await box.started(0)
    late = asyncio.create_task(box.ask(2, deadline=Deadline.after(5, box.clock)))
    patient = asyncio.create_task(box.ask(3, deadline=Deadline.after(60, box.clock)))
    await box.started(2)
    box.clock.advance(6)
    box.free.set()
    with pytest.raises(ExpiredError):
        await late
    assert await asyncio.gather(first, patient) == [[2.0], [6.0]]
    assert box.sizes == [1, 1]


async def test_a_caller_does_not_wait_longer_than_its_deadline(bench: Any) -> None:
    """Also when the batch is computing: the answer comes in time, and says so."""
    box = bench()
    box.free.clear()
    with pytest.raises(ExpiredError):
        await box.ask(1, deadline=Deadline.after(0.01, box.clock))
    box.free.set()
    assert await box.ask(2) == [4.0]


async def test_one_callers_rows_do_not_fail_the_others(bench: Any) -> None:
    """A batch that raises is tried entry by entry; a row without a number fails its caller only."""
    box = bench(rows=8)
    box.free.clear()
    first = asyncio.create_task(box.ask(0))
    await asyncio.sleep(0)
    await box.started(0)
    rows = ((1,), (13,), (2, 14), (3,))
    tasks = [asyncio.create_task(box.ask(*each)) for each in rows]
    await box.started(5)
    box.free.set()
    one, bad, no_number, three = await asyncio.gather(*tasks, return_exceptions=True)
    assert (await first, one, three) == ([0.0], [2.0], [6.0])
    assert isinstance(bad, ModelError)
    assert isinstance(no_number, ModelError)
    assert box.sizes == [1, 5, 1, 1, 2, 1]


async def test_a_delay_lets_a_batch_grow_only_if_one_is_set(bench: Any) -> None:
    """Two requests that come one after the other are one batch; a full batch does not wait."""
    box = bench(rows=2, delay=0.005)
    first = asyncio.create_task(box.ask(1))
    await box.clock.wait_for_sleepers()
    second = asyncio.create_task(box.ask(2))
    await box.started(2)
    box.clock.advance(0.005)
    assert await asyncio.gather(first, second) == [[2.0], [4.0]]
    assert box.sizes == [2]
    assert await asyncio.gather(box.ask(1), box.ask(2)) == [[2.0], [4.0]]
    assert box.sizes == [2, 2]
    assert box.clock.slept == [0.005]
