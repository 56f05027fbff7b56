"""The two sides of trainers as processes of their own, behind one path of the gateway.

What was written is read. The projector is killed with -9 while it works: commands go on without the
read side, and the read model misses nothing and counts nothing twice.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from scripts.local.ports import pick_free
from tests.local.platform_handle import eventually
from tests.system.harness import SETTLE_SECONDS, Buyer, Shop, problem

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("SLIPWAY_TEST_KILLS", "4"))
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
READ_MODEL = ("read_profiles", "read_specialities", "read_days", "read_sessions")
# Its database; the other release has none of its own.
WRITES, READS = "trainers-commands", "trainers-queries"


def command(
    shop: Shop, method: str, path: str, who: Buyer, body: Any = None, **headers: str
) -> dict[str, Any]:
    """A command through the gateway; what it answered."""
    answer = shop.call(method, f"/v1/trainers{path}", who=who, json=body, headers=headers)
    assert answer.status_code in {201, 202}, (answer.status_code, answer.text)
    return dict(answer.json())


def trainer(shop: Shop) -> tuple[str, int]:
    """A new trainer with 56 slots a week, and the version that shows them."""
    made = command(shop, "POST", "", shop.admin, {"name": f"T {uuid.uuid4().hex[:8]}"})
    slots = [
        {"day": day, "starts": f"{hour:02}:00:00", "ends": f"{hour:02}:45:00"}
        for day in DAYS
        for hour in range(8, 16)
    ]
    week = {"time_zone": "UTC", "slots": slots}
    path = f"/{made['trainer_id']}"
    done = command(shop, "PUT", f"{path}/availability", shop.admin, week, **{"If-Match": '"1"'})
    return str(made["trainer_id"]), int(done["version"])


def free(shop: Shop, who: Buyer, trainer_id: str, version: int) -> list[str]:
    """The beginnings of the free slots of three weeks."""
    path = f"/v1/trainers/{trainer_id}/schedule?days=21&at_least={version}"
    answer = eventually(
        lambda: found if (found := shop.call("GET", path, who=who)).status_code == 200 else None,
        SETTLE_SECONDS,
    )
    return [each["starts_at"] for each in answer.json()["entries"] if each["free"]]


def read_model(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the read model, as the database has it."""
    return {
        table: sorted(shop.rows(WRITES, f"SELECT * FROM {table}"), key=repr) for table in READ_MODEL
    }


def caught_up(shop: Shop) -> bool:
    """Whether every event is projected."""
    query = "SELECT (SELECT position FROM projections), (SELECT position FROM log_head)"
    [(position, head)] = shop.rows(WRITES, query)
    return bool(position == head)


def test_what_one_has_just_written_one_reads_through_the_gateway(shop: Shop) -> None:
    """Commands and queries of one path go to different processes; `at_least` joins them."""
    [member] = shop.buyers(1)
    trainer_id, version = trainer(shop)
    for at in free(shop, member, trainer_id, version)[:5]:
        booked = command(shop, "POST", f"/{trainer_id}/sessions", member, {"starts_at": at})
        path = f"/v1/trainers/{trainer_id}/sessions/{booked['session_id']}"
        answer = shop.call("GET", f"{path}?at_least={booked['version']}", who=member)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "booked"
        assert int(answer.headers["X-Projection-Version"]) >= booked["version"]
        assert float(answer.headers["X-Projection-Lag-Seconds"]) >= 0
    requests = "http_requests_total"
    assert shop.metric(READS, requests, method="GET")
    assert shop.metric(WRITES, requests, method="POST")
    assert shop.metric(WRITES, requests, method="GET", route="/v1/trainers") is None
    refused = shop.call("OPTIONS", f"/v1/trainers/{trainer_id}", who=member)
    problem(refused, 405)
    assert set(refused.headers["Allow"].split(", ")) >= {"GET", "POST", "PUT", "DELETE"}


def test_each_side_goes_by_its_own_name_and_one_database_is_migrated_once(shop: Shop) -> None:
    """What a log line and a metric say; the sibling has no database of its own."""
    for name in (WRITES, READS):
        assert shop.metric(name, "build_info", service=name) == 1.0
    assert sorted(path.name for path in (shop.platform.home / "data").glob("trainers*.db")) == [
        "trainers-commands.db"
    ]


def test_without_the_read_side_commands_go_on_and_are_read_later(shop: Shop) -> None:
    """What is booked meanwhile is there when it is back."""
    [member] = shop.buyers(1)
    trainer_id, version = trainer(shop)
    [at] = free(shop, member, trainer_id, version)[:1]
    with shop.outage(READS):
        booked = command(shop, "POST", f"/{trainer_id}/sessions", member, {"starts_at": at})
        problem(shop.call("GET", f"/v1/trainers/{trainer_id}", who=member), 503)
    path = f"/v1/trainers/{trainer_id}/sessions/{booked['session_id']}"
    answer = shop.call("GET", f"{path}?at_least={booked['version']}", who=member)
    assert answer.json()["status"] == "booked"


def test_the_projector_is_killed_under_load_and_another_goes_on(shop: Shop) -> None:
    """Kill -9 again and again, with a second process beside it: every session counts once."""
    members = shop.buyers(4)
    made = dict(trainer(shop) for _ in range(4))
    slots = [
        (each, at) for each, version in made.items() for at in free(shop, members[0], each, version)
    ]
    stop = False
    booked: list[dict[str, Any]] = []

    def trade(number: int) -> None:
        for trainer_id, at in slots[number :: len(members)]:
            if stop:
                return
            path = f"/{trainer_id}/sessions"
            done = command(shop, "POST", path, members[number], {"starts_at": at})
            booked.append(done)
            if len(booked) % 3 == 0:
                command(shop, "POST", f"{path}/{done['session_id']}/cancel", members[number])
            time.sleep(0.05)

    began = time.monotonic()
    [port] = pick_free(1)
    with ThreadPoolExecutor(len(members)) as pool, shop.second(READS, port) as second:
        try:
            work: list[Future[None]] = [
                pool.submit(trade, number) for number in range(len(members))
            ]
            for number in range(KILLS):
                enough = len(booked) + 5
                while len(booked) < enough and not all(each.done() for each in work):
                    time.sleep(0.01)
                if number % 2:
                    assert second.process is not None
                    second.process.kill()
                    second.process.wait()
                    second.start()
                else:
                    shop.restart(READS, signal.SIGKILL)
        finally:
            stop = True
        for each in work:
            each.result()
        eventually(lambda: caught_up(shop), SETTLE_SECONDS)
    live = read_model(shop)
    sessions = [row for row in live["read_sessions"] if row[1] in made]
    assert {row[0] for row in sessions} == {each["session_id"] for each in booked}
    assert len(sessions) == len(booked) > KILLS * 5
    rebuilt = shop.platform.run("run", READS, "rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert read_model(shop) == live
    lag = shop.platform.run("run", READS, "lag")
    assert ", 0 events and 0.0 s behind" in lag.stdout
    print(f"\n{KILLS} kills, {len(booked)} sessions, {time.monotonic() - began:.0f} s")
