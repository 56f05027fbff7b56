"""Prometheus metrics of a process: requests, event-loop lag, build, and the text for `/metrics`.

Labels are bounded: the route is the route's template (unmatched paths share one value), the method
is a known one or `_OTHER`. Children are looked up once per (method, route, status) and kept.
OpenMetrics, with exemplars that name the trace of a sampled request, goes to a client that asks
for it by `Accept`; everyone else gets the classic text format.
"""

from __future__ import annotations

import asyncio
import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from chassis.settings import ServiceSettings

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
UNMATCHED = "_unmatched"
OTHER = "_OTHER"
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
LAG_INTERVAL = 0.25


class RequestMetrics:
    """Counts and times requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["method", "route", "status"]
        self._total = Counter(
            "http_requests_total", "Requests answered.", labels, registry=registry
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from the request's arrival to the end of its response.",
            labels,
            buckets=BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "http_requests_in_flight",
            "Requests being served now.",
            ["method"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._methods: dict[str, Gauge] = {}

    def begin(self, method: str) -> str:
        """Note that a request began; return its method label."""
        gauge = self._methods.get(method)
        if gauge is None:
            method = method if method in METHODS else OTHER
            gauge = self._methods[method] = self._in_flight.labels(method)
        gauge.inc()
        return method

    def end(
        self, method: str, route: str, status: int, seconds: float, trace_id: str | None
    ) -> None:
        """Note that the request ended; `trace_id` only when its trace is recorded."""
        self._methods[method].dec()
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            values = (method, route, str(status))
            series = self._total.labels(*values), self._duration.labels(*values)
            self._series[key] = series
        series[0].inc()
        series[1].observe(seconds, None if trace_id is None else {"trace_id": trace_id})


def build_info(registry: CollectorRegistry, settings: ServiceSettings) -> None:
    """Register `build_info`, always 1, whose labels say what runs."""
    Gauge(
        "build_info",
        "What runs: always 1.",
        ["service", "version", "revision", "python"],
        registry=registry,
        multiprocess_mode="max",
    ).labels(
        settings.service_name, settings.version, settings.revision, platform.python_version()
    ).set(1)


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
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
