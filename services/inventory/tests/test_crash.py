"""The process is killed in the middle of its work; the database must not notice."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime

import httpx2
import pytest

from chassis.database import Database
from chassis.testing.processes import end_with_parent
from inventory import reservations, stock
from inventory.stock import Cause

BUYERS = 12


@pytest.fixture
def start(settings, token_issuer, tmp_path, eventually):
    """A function that starts a real server process on the database; all of them end."""
    processes = []

    async def launch():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "INVENTORY_ENVIRONMENT": "test",
            "INVENTORY_DATABASE_URL": settings.database_url,
            "INVENTORY_PORT": str(port),
            "INVENTORY_ISSUER": token_issuer.issuer,
            "INVENTORY_JWKS_URL": token_issuer.jwks_url,
            "INVENTORY_ACCESS_LOG": "false",
        }
        with (tmp_path / "server.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220  (a fork is quick)
                [sys.executable, "-m", "chassis", "serve", "inventory"],
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )
        processes.append(process)
        url = f"http://127.0.0.1:{port}"

        async def ready():
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
                    return (await client.get(f"{url}/readyz")).status_code == 200
            except httpx2.TransportError:
                return False

        await eventually(ready)
        return process, url

    yield launch
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


async def buy(url, headers, prefix, answered):
    """Reserve and then confirm or release, without end; note every answer that was received."""
    async with httpx2.AsyncClient(
        base_url=url, headers=headers, trust_env=False, timeout=60
    ) as client:
        for number in range(10**6):
            name = f"{prefix}-{number}"
            lines = [{"item_id": each, "quantity": 1 + number % 3} for each in ("mug", "pan")]
            step = ("confirm", "release", None)[number % 3]
            held = await client.post("/v1/reservations", json={"id": name, "lines": lines[::-1]})
            if held.status_code != 201:
                continue
            answered[name] = "held"
            if step:
                done = await client.post(f"/v1/reservations/{name}/{step}")
                if done.status_code == 200:
                    answered[name] = done.json()["state"]


@pytest.mark.timeout(300)  # it starts two processes
async def test_kill_9_under_load_loses_no_answer_and_no_unit(
    *, start, settings, token_issuer, eventually, adds_up
):
    """Killed twice: ledger, stock and reservations agree, and all that a client was told is so.

    What was in flight happened wholly or not at all.
    """
    database = Database(settings)
    now = datetime.now(UTC)
    async with database.session() as session:
        for item in ("mug", "pan"):
            await stock.set_level(session, item, 100_000, Cause(now))
    headers = token_issuer.authorization("orders", "inventory:reserve")
    answered = {}
    for round_number in range(2):
        process, url = await start()
        before = len(answered)
        buyers = [
            asyncio.create_task(buy(url, headers, f"{round_number}-{number}", answered))
            for number in range(BUYERS)
        ]

        async def busy(goal=before + 40):
            return len(answered) >= goal

        await eventually(busy)
        process.send_signal(signal.SIGKILL)
        ended = await asyncio.gather(*buyers, return_exceptions=True)
        assert all(isinstance(each, httpx2.TransportError) for each in ended), ended
        process.wait()
        await adds_up()

    further = {"held": {"held", "confirmed", "released"}, "confirmed": {"confirmed"}}
    async with database.reading() as session:
        for name, told in answered.items():
            found = (await reservations.get(session, name, now)).state.value
            assert found in further.get(told, {told})
    await database.close()
