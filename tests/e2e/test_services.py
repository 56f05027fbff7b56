"""The services beside the order path, on the cluster: each does its work through the gateway."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from scripts.kube.entry import forwarded
from stream.client import StreamClient
from tests.e2e.harness import ADMIN, PASSWORD, Platform, wait_for
from tests.load.stage import log_in


@dataclass
class Front:
    """The gateway by a forwarded port, and two people in front of it."""

    url: str
    token: str
    admin: str

    def call(self, method: str, path: str, *, admin: bool = False, **more: Any) -> httpx2.Response:
        """Send one request; `more` is httpx2's."""
        headers = {
            "Authorization": f"Bearer {self.admin if admin else self.token}",
            **more.pop("headers", {}),
        }
        url = f"{self.url}{path}"
        return httpx2.request(method, url, headers=headers, timeout=30, trust_env=False, **more)


@pytest.fixture(scope="module")
def front(platform: Platform) -> Iterator[Front]:
    with forwarded(platform.cluster, platform.namespace) as url:
        email = f"e2e-{os.urandom(4).hex()}@example.org"
        signed = httpx2.post(
            f"{url}/v1/users", json={"email": email, "password": PASSWORD}, trust_env=False
        )
        assert signed.status_code == 201, signed.text
        host = url.removeprefix("http://")
        yield Front(url, log_in(host, email), log_in(host, ADMIN))


def test_a_task_is_made_changed_and_completed_by_any_replica(front: Front) -> None:
    """Each request may meet another pod; the entity tag is the same from all of them."""
    made = front.call("POST", "/v1/tasks", json={"title": "Water the plants"})
    assert made.status_code == 201, made.text
    path, tag = f"/v1/tasks/{made.json()['id']}", made.headers["ETag"]
    for number in range(6):
        changed = front.call(
            "PATCH", path, json={"title": f"Water {number}"}, headers={"If-Match": tag}
        )
        assert changed.status_code == 200, changed.text
        tag = changed.headers["ETag"]
        assert front.call("GET", path).headers["ETag"] == tag
    done = front.call("POST", "/v1/tasks/complete", json={"ids": [made.json()["id"]]})
    assert done.status_code == 200, done.text
    assert front.call("GET", path).json()["status"] == "done"


def test_what_trainers_commands_takes_trainers_queries_shows(
    platform: Platform, front: Front
) -> None:
    """Two releases of one image, each with its own pods; `at_least` waits for the projection."""
    for name in ("trainers-commands", "trainers-queries"):
        images = {pod.spec.containers[0].image for pod in platform.pods(name)}
        assert len(images) == 1
        assert "slipway/trainers:" in images.pop()
    for number in range(8):
        made = front.call("POST", "/v1/trainers", admin=True, json={"name": f"Trainer {number}"})
        assert made.status_code in {201, 202}, made.text
        path = f"/v1/trainers/{made.json()['trainer_id']}?at_least={made.json()['version']}"
        shown = front.call("GET", path)
        assert shown.status_code == 200, shown.text
        assert shown.json()["name"] == f"Trainer {number}"


def test_predictions_come_with_their_interval(front: Front) -> None:
    body = {"features": {"bmi": 31.5}}
    answer = front.call("POST", "/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    [found] = answer.json()["predictions"]
    assert found["interval"]["lower"] < found["value"] < found["interval"]["upper"]
    assert front.call("GET", "/v2/health/ready").json() == {"ready": True}


def test_a_listener_misses_nothing_while_stream_is_rolled_out(
    platform: Platform, front: Front
) -> None:
    """Every reading that was acknowledged arrives once and in order, by whichever replica."""
    sent, heard, interruptions = asyncio.run(_measure(platform, front))
    print(f"\nstream: {len(sent)} readings, {interruptions} interruptions of the listener")
    assert len(sent) >= 100
    assert interruptions >= 1
    assert heard == sent


async def _measure(platform: Platform, front: Front) -> tuple[list[int], list[int], int]:
    sensor = f"e2e-{os.urandom(4).hex()}"
    heard: list[int] = []
    subscribed = asyncio.Event()

    async def token() -> str:
        return front.token

    def notice(message: dict[str, Any]) -> None:
        assert message["type"] not in {"gap", "dropped", "error"}, message
        if message["type"] == "subscribed":
            subscribed.set()

    client = StreamClient(front.url.replace("http", "ws", 1) + "/v1/stream", token, notices=notice)

    async def listen() -> None:
        async for event in client.listen(f"sensors/{sensor}"):
            heard.append(int(event["data"]["value"]))  # noqa: PERF401  (counted meanwhile)

    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        await asyncio.wait_for(subscribed.wait(), 30)
        rollout = tasks.create_task(asyncio.to_thread(platform.deployer.restart, "stream"))
        # The old pod serves on for its notice after the rollout, and then sends its clients away.
        sent = await _send(
            front, sensor, lambda: rollout.done() and client.interruptions and len(heard)
        )
        await asyncio.to_thread(wait_for, lambda: len(heard) >= len(sent), "what was sent", 60)
        listening.cancel()
    return sent, heard, client.interruptions


async def _send(front: Front, sensor: str, over: Callable[[], object]) -> list[int]:
    """Send readings, none of which may be refused, until it is over; for 3 minutes at most."""
    sent: list[int] = []
    ends = time.monotonic() + 180
    headers = {"Authorization": f"Bearer {front.admin}"}
    url = f"{front.url}/v1/sensors/{sensor}/readings"
    async with httpx2.AsyncClient(trust_env=False, headers=headers, timeout=30) as client:
        for number in itertools.count():
            body = {"value": number, "unit": "1", "at": "2026-05-04T12:00:00Z"}
            answer = await client.post(url, json=body)
            assert answer.status_code == 202, answer.text
            sent.append(number)
            if (over() and len(sent) >= 100) or time.monotonic() > ends:
                return sent
            await asyncio.sleep(0.05)
    raise AssertionError
