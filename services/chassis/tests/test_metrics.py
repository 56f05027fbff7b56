"""Metrics: what is counted, the two text formats, exemplars, and several processes."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from chassis import ServiceSettings, create_app
from chassis.metrics import (
    BUCKETS,
    LagSampler,
    RequestMetrics,
    SharedRequestMetrics,
    exposition,
    register_process,
)

OPEN = "application/openmetrics-text; version=1.0.0"
router = APIRouter()


@router.get("/hello/{name}")
async def hello(name: str) -> str:
    return name


def make(**options: Any) -> FastAPI:
    settings = ServiceSettings(
        service_name="demo", environment="test", access_log=False, version="1.2.3", revision="abc",
        **options.pop("settings", {}),
    )  # fmt: skip
    return create_app(settings, title="Demo", description="", routers=[router], **options)


def test_requests_are_counted_and_timed() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    labels = {"method": "GET", "route": "/x", "status": "200"}
    for seconds in (0.0005, 0.001, 0.002, 99.0):
        assert metrics.begin("GET") == "GET"
        assert registry.get_sample_value("http_requests_in_flight", {"method": "GET"}) == 1
        metrics.end("GET", "/x", 200, seconds, None)
    assert registry.get_sample_value("http_requests_in_flight", {"method": "GET"}) == 0
    assert registry.get_sample_value("http_requests_total", labels) == 4
    name = "http_request_duration_seconds"
    assert registry.get_sample_value(f"{name}_count", labels) == 4
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(99.0035)
    bucket = f"{name}_bucket"
    assert registry.get_sample_value(bucket, {**labels, "le": "0.001"}) == 2
    assert registry.get_sample_value(bucket, {**labels, "le": "10.0"}) == 3
    assert registry.get_sample_value(bucket, {**labels, "le": "+Inf"}) == 4


def test_both_ways_to_count_give_the_same_text() -> None:
    """The quick counters and prometheus_client's own cannot be told apart by Prometheus."""
    texts = []
    for kind in (RequestMetrics, SharedRequestMetrics):
        registry = CollectorRegistry()
        metrics = kind(registry)
        for index, bound in enumerate((*BUCKETS, 20.0)):
            method = metrics.begin("GET" if index % 2 else "BREW")
            metrics.end(method, "/x/{y}", 200 + index % 3, bound, None)
        text, _ = exposition(registry, "")
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse_text(text.decode())
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        texts.append(samples)
    assert texts[0] == texts[1]


def test_methods_are_bounded() -> None:
    metrics = RequestMetrics(CollectorRegistry())
    assert metrics.begin("BREW") == "_OTHER"
    assert metrics.begin("get") == "_OTHER"


async def test_the_format_is_negotiated(app_client: Any) -> None:
    async with app_client(make()) as client:
        await client.get("/hello/x")
        classic = await client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        assert classic.headers["content-type"].startswith("text/plain; version=")
        assert "content-encoding" not in classic.headers
        names = {family.name for family in parse_text(classic.text)}
        opened = await client.get("/metrics", headers={"Accept": OPEN})
        assert opened.headers["content-type"].startswith("application/openmetrics-text")
        assert opened.text.endswith("# EOF\n")
        assert names >= {
            "http_requests",
            "http_request_duration_seconds",
            "http_requests_in_flight",
            "event_loop_lag_seconds",
            "build_info",
            "process_cpu_seconds",
        }
        families = {family.name: family for family in parse_open(opened.text)}
        [sample] = families["build_info"].samples
        assert sample.labels["service"] == "demo"
        assert sample.labels["version"] == "1.2.3"
        assert sample.labels["revision"] == "abc"
        assert sample.labels["python"].startswith("3.")


async def test_exemplars_name_the_trace_of_recorded_requests_only(app_client: Any) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    app = make(span_exporter=InMemorySpanExporter(), settings={"trace_sample_ratio": 0.0})
    async with app_client(app) as client:

        async def exemplars() -> set[str]:
            text = (await client.get("/metrics", headers={"Accept": OPEN})).text
            return {
                sample.exemplar.labels["trace_id"]
                for family in parse_open(text)
                for sample in family.samples
                if sample.exemplar
            }

        await client.get("/hello/x")
        await client.get("/hello/x", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-00"})
        assert await exemplars() == set()
        await client.get("/hello/x", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
        assert await exemplars() == {trace_id}


async def test_the_lag_of_a_blocked_loop_shows() -> None:
    registry = CollectorRegistry()
    sampler = asyncio.create_task(LagSampler(registry, interval=0.01).run())
    await asyncio.sleep(0)
    time.sleep(0.08)  # noqa: ASYNC251  (the block is what is measured)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if registry.get_sample_value("event_loop_lag_seconds_count"):
            break
    sampler.cancel()
    assert (registry.get_sample_value("event_loop_lag_seconds_sum") or 0) >= 0.05


def test_process_metrics_are_there() -> None:
    registry = CollectorRegistry()
    register_process(registry, ServiceSettings(service_name="demo", environment="test"))
    assert registry.get_sample_value("process_resident_memory_bytes")


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    """With the shared directory set, `/metrics` of any process tells the sum over all."""
    program = (
        "from prometheus_client import CollectorRegistry\n"
        "from chassis.metrics import exposition, request_metrics\n"
        "metrics = request_metrics(CollectorRegistry())\n"
        "for _ in range(3):\n"
        "    metrics.end(metrics.begin('GET'), '/x', 200, 0.1, 'a' * 32)\n"
        "print(exposition(CollectorRegistry(), '')[0].decode())\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for expected in (3.0, 6.0):
        text = subprocess.run(
            [sys.executable, "-c", program],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        samples = {
            sample.name: sample.value for family in parse_text(text) for sample in family.samples
        }
        assert samples["http_requests_total"] == expected
        assert samples["http_request_duration_seconds_count"] == expected
