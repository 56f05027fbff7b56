"""Prometheus metrics of a process: requests, event-loop lag, build, and the text for `/metrics`.

Labels are bounded: the route is the route's template (unmatched paths share one value), the method
is a known one or `_OTHER`. OpenMetrics, with exemplars that name the trace of a recorded request,
goes to a client that asks for it by `Accept`; everyone else gets the classic text format.

`RequestMetrics` counts in plain integers of its own, because a request is the hot path, and turns
them into metric families when it is scraped. Several processes behind one port (gunicorn) cannot
share those integers: there `SharedRequestMetrics` counts through prometheus_client's files
(`PROMETHEUS_MULTIPROC_DIR`), and `/metrics` adds all processes up, without exemplars.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from chassis.saturation import ThreadPoolCollector
from chassis.settings import ServiceSettings

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
UNMATCHED = "_unmatched"
OTHER = "_OTHER"
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
LAG_INTERVAL = 0.25
SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_LABELS = ("method", "route", "status")
_REQUESTS = ("http_requests", "Requests answered.")
_DURATION = (
    "http_request_duration_seconds",
    "Time from the arrival of a request to the end of its response.",
)
_IN_FLIGHT = ("http_requests_in_flight", "Requests being served now.")
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


class RequestObserver(Protocol):
    """Counts requests."""

    def begin(self, method: str) -> str:
        """Note that a request began; return its method label."""
        ...

    def end(
        self, method: str, route: str, status: int, seconds: float, trace_id: str | None
    ) -> None:
        """Note that a request ended; `trace_id` only when its trace is recorded."""
        ...


class _Series:
    """The counts of one (method, route, status)."""

    __slots__ = ("counts", "created", "exemplars", "total")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        self.created = time.time()


class RequestMetrics(Collector):
    """Counts and times the requests of this process; written and read on one event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._in_flight: dict[str, int] = {}
        registry.register(self)

    def begin(self, method: str) -> str:
        """Note that a request began; return its method label."""
        if method not in METHODS:
            method = OTHER
        self._in_flight[method] = self._in_flight.get(method, 0) + 1
        return method

    def end(
        self, method: str, route: str, status: int, seconds: float, trace_id: str | None
    ) -> None:
        """Note that the request ended; `trace_id` only when its trace is recorded."""
        self._in_flight[method] -= 1
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        bucket = bisect_left(BUCKETS, seconds)
        series.counts[bucket] += 1
        series.total += seconds
        if trace_id is not None:
            series.exemplars[bucket] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples, so that the registry finds name clashes."""
        yield CounterMetricFamily(*_REQUESTS, labels=_LABELS)
        yield HistogramMetricFamily(*_DURATION, labels=_LABELS)
        yield GaugeMetricFamily(*_IN_FLIGHT, labels=("method",))

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        requests = CounterMetricFamily(*_REQUESTS, labels=_LABELS)
        duration = HistogramMetricFamily(*_DURATION, labels=_LABELS)
        for (method, route, status), series in self._series.items():
            labels = (method, route, str(status))
            cumulated = 0
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            for index, bound in enumerate(_BOUNDS):
                cumulated += series.counts[index]
                exemplar = series.exemplars.get(index)
                buckets.append(
                    (bound, cumulated) if exemplar is None else (bound, cumulated, exemplar)
                )
            requests.add_metric(labels, cumulated, created=series.created)
            duration.add_metric(labels, buckets, series.total)
        in_flight = GaugeMetricFamily(*_IN_FLIGHT, labels=("method",))
        for method, number in self._in_flight.items():
            in_flight.add_metric((method,), number)
        yield requests
        yield duration
        yield in_flight


class SharedRequestMetrics:
    """The same metrics for one of several processes, through prometheus_client's shared files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(*_REQUESTS, _LABELS, registry=registry)
        self._duration = Histogram(*_DURATION, _LABELS, buckets=BUCKETS, registry=registry)
        self._in_flight = Gauge(
            *_IN_FLIGHT, ("method",), registry=registry, multiprocess_mode="livesum"
        )

    def begin(self, method: str) -> str:
        """Note that a request began; return its method label."""
        method = method if method in METHODS else OTHER
        self._in_flight.labels(method).inc()
        return method

    def end(
        self, method: str, route: str, status: int, seconds: float, trace_id: str | None
    ) -> None:
        """Note that the request ended. The shared files keep no exemplars."""
        del trace_id
        self._in_flight.labels(method).dec()
        labels = (method, route, str(status))
        self._total.labels(*labels).inc()
        self._duration.labels(*labels).observe(seconds)


def is_shared() -> bool:
    """Say whether this process is one of several that count together."""
    return SHARED_DIRECTORY in os.environ


def request_metrics(registry: CollectorRegistry) -> RequestObserver:
    """Return the request metrics that fit this process."""
    return SharedRequestMetrics(registry) if is_shared() else RequestMetrics(registry)


def register_process(registry: CollectorRegistry, settings: ServiceSettings) -> None:
    """Register what describes the process: `build_info`, CPU, memory, collection, threads."""
    Gauge(
        "build_info",
        "What runs: always 1.",
        ["service", "version", "revision", "python"],
        registry=registry,
        multiprocess_mode="max",
    ).labels(
        settings.service_name, settings.version, settings.revision, platform.python_version()
    ).set(1)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(ThreadPoolCollector())


class LagSampler:
    """Measures how late the event loop runs its timers: the sign of blocking code."""

    def __init__(self, registry: CollectorRegistry, interval: float = LAG_INTERVAL) -> None:
        self._interval = interval
        self._lag = Histogram(
            "event_loop_lag_seconds",
            "How late a timer of the event loop ran.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            await asyncio.sleep(self._interval)
            self._lag.observe(max(loop.time() - due, 0.0))


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics as (text, content type), in the format that `accept` asks for."""
    if is_shared():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
