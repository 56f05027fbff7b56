"""The jobs of a scheduled event: each has its turn, and what went wrong is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import chassis
from chassis import Runtime, ServiceSettings, aws
from tests.aws.runtime_api import SCHEDULED

NAMES = ("outbox-relay", "inbox-purge", "idempotency-purge")
WORK_SECONDS = 3.0


class Context:
    """An invocation that has some seconds for its work, and plenty to send its spans."""

    aws_request_id = "a-scheduled-one"

    def __init__(self) -> None:
        self._ends = time.monotonic() + WORK_SECONDS + aws.RESERVE_SECONDS + aws.FLUSH_SECONDS

    def get_remaining_time_in_millis(self) -> int:
        """As Lambda says it."""
        return int(max(self._ends - time.monotonic(), 0) * 1000)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Where the spans go."""
    return InMemorySpanExporter()


@pytest.fixture
def function(
    monkeypatch: pytest.MonkeyPatch, spans: InMemorySpanExporter
) -> Iterator[aws.Function]:
    """A function whose service has each of the loops that are jobs here."""
    monkeypatch.setattr(aws, "FLUSH_SECONDS", 60.0)

    async def loop(_: Runtime) -> None:
        await asyncio.Event().wait()

    settings = ServiceSettings(
        service_name="jobs", environment="test", serverless=True, trace_sample_ratio=1.0
    )
    app = chassis.create_app(
        settings,
        title="jobs",
        description="",
        workers=dict.fromkeys(NAMES, loop),
        span_exporter=spans,
    )
    function = aws.Function(app)
    function.open()
    try:
        yield function
    finally:
        function.close()
        function._loop.close()
        asyncio.set_event_loop(None)


def test_a_job_that_hangs_or_fails_leaves_the_others_their_share(
    function: aws.Function, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told of, as one error of the invocation, and the spans are sent all the same."""
    ran: list[str] = []

    async def hangs(runtime: Runtime) -> None:
        ran.append("hangs")
        assert runtime.tracer_provider is not None
        runtime.tracer_provider.get_tracer("jobs").start_span("hangs").end()
        await asyncio.Event().wait()

    async def fails(_: Runtime) -> None:
        ran.append("fails")
        raise ValueError("on purpose")

    async def works(_: Runtime) -> None:
        ran.append("works")

    jobs: dict[str, Any] = dict(zip(NAMES, (hangs, fails, works), strict=True))
    monkeypatch.setattr(aws, "JOBS", jobs)
    with pytest.raises(ExceptionGroup) as raised:
        function(SCHEDULED, Context())
    assert ran == ["hangs", "fails", "works"]
    assert [type(each) for each in raised.value.exceptions] == [TimeoutError, ValueError]
    assert [span.name for span in spans.get_finished_spans()] == ["hangs"]
    monkeypatch.setattr(aws, "JOBS", dict.fromkeys(NAMES, works))
    assert function(SCHEDULED, Context()) == {"jobs": list(NAMES)}
