"""What is full: the thread pool and the pool of connections, as `/metrics` tells them."""

import threading
from typing import Any

import anyio
from anyio.to_thread import current_default_thread_limiter, run_sync
from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse

from chassis import ServiceSettings, create_app
from chassis.saturation import ThreadPoolCollector

router = APIRouter()
release = threading.Event()


@router.get("/blocking")
def blocking() -> str:
    assert release.wait(30)
    return "done"


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("state", "")): sample.value
        for family in parse(text)
        for sample in family.samples
    }


async def test_blocking_handlers_take_tokens_and_the_rest_waits(app_client: Any) -> None:
    """Three requests on a pool of two: two tokens are used, none is free, one request waits."""
    settings = ServiceSettings(service_name="demo", environment="test", access_log=False)
    app = create_app(settings, title="Demo", description="", routers=[router])
    release.clear()
    async with app_client(app) as client:
        before = samples((await client.get("/metrics")).text)
        assert before["thread_pool_tokens", "used"] == 0
        assert before["thread_pool_tokens", "free"] == 40
        assert before["thread_pool_waiting", ""] == 0
        limiter = current_default_thread_limiter()
        limiter.total_tokens = 2
        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(client.get, "/blocking")
                try:
                    with anyio.fail_after(30):
                        while limiter.statistics().tasks_waiting < 1:  # noqa: ASYNC110
                            await anyio.sleep(0.01)
                    full = samples((await client.get("/metrics")).text)
                finally:
                    release.set()
        finally:
            limiter.total_tokens = 40
    assert full["thread_pool_tokens", "used"] == 2
    assert full["thread_pool_tokens", "free"] == 0
    assert full["thread_pool_waiting", ""] == 1


def test_without_an_event_loop_there_is_no_pool() -> None:
    """Collecting elsewhere (a command, a registry's own check) raises nothing and tells nothing."""
    registry = CollectorRegistry()
    registry.register(ThreadPoolCollector())
    assert registry.get_sample_value("thread_pool_waiting") is None


async def test_a_loop_of_its_own_has_a_pool_of_its_own() -> None:
    registry = CollectorRegistry()
    registry.register(ThreadPoolCollector())
    await run_sync(int)
    assert registry.get_sample_value("thread_pool_tokens", {"state": "free"}) == 40
