"""Reminders of tasks through the whole platform: told once, whatever is killed or away."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from tests.local.platform_handle import eventually
from tests.system.harness import SETTLE_SECONDS, Buyer, Shop

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KILLS = 5


def soon() -> str:
    """A time that is near enough for a reminder."""
    return (datetime.now(UTC) + timedelta(hours=2)).isoformat()


def told(shop: Shop, owner: Buyer) -> Counter[str]:
    """How often each task was told to its owner."""
    query = (
        f"SELECT data FROM notifications WHERE kind = 'task.due-soon' AND recipient = '{owner.id}'"
    )
    data = [row[0] for row in shop.rows("notifications", query)]
    return Counter(
        (json.loads(each) if isinstance(each, str) else each)["task_id"] for each in data
    )


def pending(shop: Shop) -> int:
    """How many reminders still wait for their delivery."""
    [(count,)] = shop.rows("tasks", "SELECT count(*) FROM outbox WHERE state = 'pending'")
    return int(count)


def test_a_reminder_waits_for_notifications(shop: Shop) -> None:
    """Tasks go on without it; afterwards the owner is told once, and nobody else is."""
    owner, other = shop.buyers(2)
    with shop.outage("notifications"):
        made = shop.call("POST", "/v1/tasks", who=owner, json={"title": "Rent", "due_at": soon()})
        assert made.status_code == 201, made.text
        task = made.json()
        eventually(lambda: pending(shop) == 1, SETTLE_SECONDS)
        path = f"/v1/tasks/{task['id']}"
        assert shop.call("GET", path, who=owner).json() == task
        assert shop.call("GET", path, who=other).status_code == 404
        assert shop.call("GET", path).status_code == 401
    eventually(lambda: told(shop, owner) == {task["id"]: 1}, SETTLE_SECONDS)
    [note] = shop.call("GET", "/v1/notifications", who=owner).json()["items"]
    assert (note["kind"], note["data"]["task_id"]) == ("task.due-soon", task["id"])
    assert shop.call("GET", "/v1/notifications", who=other).json()["items"] == []
    done = shop.call("POST", f"{path}/complete", who=owner, headers={"If-Match": '"1"'})
    assert (done.status_code, done.json()["status"]) == (200, "done")


class Writer(threading.Thread):
    """Creates tasks until it is stopped; repeats what was not answered, with the same key."""

    def __init__(self, shop: Shop, owner: Buyer) -> None:
        super().__init__(daemon=True)
        self.made: list[str] = []
        self.retries = 0
        self._shop, self._owner = shop, owner
        self._stopped = threading.Event()

    def run(self) -> None:
        """Create."""
        while not self._stopped.is_set():
            self.made.append(self._create(str(uuid.uuid4()), soon()))

    def stop(self) -> None:
        """End after the task that is being made."""
        self._stopped.set()
        self.join(SETTLE_SECONDS)
        assert not self.is_alive()

    def _create(self, key: str, due_at: str) -> str:
        while True:
            try:
                answer = self._shop.call(
                    "POST",
                    "/v1/tasks",
                    who=self._owner,
                    json={"title": "Rent", "due_at": due_at},
                    headers={"Idempotency-Key": key},
                )
            except httpx2.TransportError:
                answer = None
            if answer is not None and answer.status_code == 201:
                return str(answer.json()["id"])
            assert answer is None or answer.status_code in {409, 429, 502, 503, 504}, answer.text
            self.retries += 1
            time.sleep(0.1)


def test_a_killed_worker_tells_each_task_once(shop: Shop) -> None:
    """Two replicas on one database; one is killed again and again while tasks are made."""
    [owner] = shop.buyers(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with shop.second("tasks", port):
        writer = Writer(shop, owner)
        writer.start()
        for _ in range(KILLS):
            seen = len(writer.made)
            eventually(lambda seen=seen: len(writer.made) >= seen + 5, SETTLE_SECONDS)
            time.sleep(random.uniform(0, 0.3))
            shop.send("tasks", signal.SIGKILL)
        writer.stop()
        shop.recover()
        rows = shop.rows("tasks", f"SELECT id FROM tasks WHERE owner = '{owner.id}'")
        stored = {row[0] for row in rows}
        assert stored == set(writer.made), "a task that was answered, and no other"
        eventually(lambda: set(told(shop, owner)) == stored and not pending(shop), SETTLE_SECONDS)
        assert set(told(shop, owner).values()) == {1}
        events = shop.rows("tasks", "SELECT subject FROM outbox")
        written = Counter(row[0] for row in events if row[0] in stored)
        assert set(written.values()) == {1}, "each marked and published in one transaction"
    print(f"\n{KILLS} kills, {len(stored)} tasks, {writer.retries} requests repeated")
