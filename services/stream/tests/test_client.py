"""The reference client and the simulator, against running processes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import httpx2
import pytest

from chassis.testing import FakeClock
from stream.client import RefusedError, StreamClient
from stream.simulator import Plan, Simulator


def client_of(replica, **options):
    async def token():
        return replica.token()

    return StreamClient(replica.url.replace("http", "ws", 1) + "/v1/stream", token, **options)


async def test_it_goes_on_after_every_interruption(start, valkey_process, until):
    """Its stream is cut again and again; every reading arrives once and in order."""
    async with start(valkey_url=valkey_process.url) as replica:
        got = []

        async def listen():
            async with client_of(replica) as client:
                async for event in client.listen("sensors/*"):
                    got.append(event["data"]["value"])
                    if len(got) == 200:
                        break
                return client.interruptions

        listening = asyncio.create_task(listen())
        await until(lambda: replica.streams.hub._wanted)
        for number in range(0, 200, 10):
            await replica.measure("a", *range(number, number + 10))
            if number % 50 == 0:
                for connection in list(replica.streams.connections.open):
                    connection.cut()
        async with asyncio.timeout(30):
            assert await listening >= 3
        assert got == list(range(200))


async def test_it_goes_on_when_its_token_ends(start, until):
    """It asks for the next token, and misses nothing."""
    clock = FakeClock()
    async with start(clock=clock) as replica, asyncio.timeout(60):
        ends = [300, 3000]

        async def token():
            return replica.token(expires_in=ends.pop(0))

        client = StreamClient(replica.url.replace("http", "ws", 1) + "/v1/stream", token)
        events = client.listen("sensors/a")
        first = asyncio.create_task(anext(events))
        await until(lambda: replica.streams.hub._wanted)
        clock.advance(310)
        await until(lambda: client.interruptions == 1)
        await replica.measure("a", 1)
        assert (await first)["data"]["value"] == 1
        assert ends == []
        await events.aclose()


async def test_it_notes_how_far_a_quiet_stream_is(start, until):
    """So that it is not told of a gap among events of others when it comes back."""
    clock = FakeClock()
    async with start(clock=clock) as replica:
        client = client_of(replica)
        events = client.listen("orders")
        first = asyncio.create_task(anext(events))
        await until(lambda: client.last_event_id)
        await replica.measure("a", 1)
        clock.advance(16)
        await until(lambda: client.last_event_id == str(replica.streams.hub.head))
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await events.aclose()


async def test_what_cannot_help_is_not_tried_again(start):
    """A refused token or topic is an error of the caller."""
    async with start() as replica:
        client = client_of(replica)
        with pytest.raises(RefusedError, match="bad-message"):
            await anext(client.listen("orders/u2"))

        async def bad():
            return "nonsense"

        client = StreamClient(replica.url.replace("http", "ws", 1) + "/v1/stream", bad)
        with pytest.raises(RefusedError, match="401"):
            await anext(client.listen("orders"))


async def test_a_drain_loses_nothing(start, valkey_process, until):
    """Every client is said goodbye to with 1012 and a hint, spread over time; none misses one."""
    url = valkey_process.url
    options = {"valkey_url": url, "goodbye_spread_seconds": 1.0, "connections_per_user": 50}
    async with start(**options) as old, start(**options) as new:
        await until(lambda: old.streams.hub.loaded and new.streams.hub.loaded)
        told = []
        clients = []
        for _ in range(20):
            manager = old.open()
            client = await manager.__aenter__()
            clients.append((manager, client))
            await client.subscribe("sensors/a")
        old.app.state.runtime.lifecycle.draining = True

        async def finish(client):
            code, _ = await client.closed()
            goodbye = client.seen[-1]
            told.append((code, goodbye["type"], goodbye.get("retry_ms")))
            assert 500 <= goodbye["retry_ms"] <= 2500
            values = [each for each in client.seen if each["type"] == "event"]
            begins = [each for each in client.seen if each["type"] == "subscribed"]
            last = values[-1]["id"] if values else begins[0]["last_event_id"]
            before = [each["data"]["value"] for each in values]
            async with new.open() as again:
                await again.subscribe("sensors/a", last_event_id=last)
                return before + await again.values(30 - len(before))

        async def write():
            for number in range(30):
                await new.measure("a", number)
                await asyncio.sleep(0.03)

        results, _ = await asyncio.gather(
            asyncio.gather(*(finish(client) for _, client in clients)), write()
        )
        assert results == [list(range(30))] * 20
        assert {(code, kind) for code, kind, _ in told} == {(1012, "goodbye")}
        assert len({hint for *_, hint in told}) > 5, "not all come back at the same time"
        assert old.app.state.runtime.lifecycle.streams == 0
        refused = await old.http.get(
            "/v1/events",
            params={"topics": "orders"},
            headers={"Authorization": f"Bearer {old.token()}"},
        )
        assert refused.status_code == 503
        for manager, _ in clients:
            await manager.__aexit__(None, None, None)


async def test_the_simulator_keeps_its_rate_and_its_count(start):
    """So many readings, not faster than it was told, from so many sensors."""
    async with start() as replica:
        plan = Plan(replica.url, sensors=3, rate=100, count=50)
        async with httpx2.AsyncClient(
            headers=replica._meter, trust_env=False, timeout=60
        ) as client:
            simulator = Simulator(plan, client, seed=7)
            began = asyncio.get_running_loop().time()
            await simulator.run()
        assert simulator.sent == 50
        assert asyncio.get_running_loop().time() - began > 0.4
        topics = {entry.topic for entry in replica.streams.hub.history._tails["sensors"]}
        assert topics <= {"sensors/sim-1", "sensors/sim-2", "sensors/sim-3"}


async def test_the_simulator_ends_cleanly(start, until):
    """As a command: SIGTERM ends it with 0 and the number that was taken, no more and no less."""
    async with start() as replica:
        token = replica.issuer.token("meter", "sensors:write")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stream.simulator", "--url", replica.url, "--rate", "200"),
            env={**os.environ, "STREAM_SIMULATOR_TOKEN": token},
            stdout=subprocess.PIPE,
        )
        try:
            stored = replica.streams.metrics.stored["sensors"]._value
            await until(lambda: stored.get() > 20)
            process.send_signal(signal.SIGTERM)
            out, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0
        assert out.decode().strip() == f"{int(stored.get())} readings sent"


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--sensors", "0"], []])
def test_the_simulator_refuses_what_makes_no_sense(monkeypatch, capsys, arguments):
    """One line on stderr, exit code 2."""
    from stream.simulator import main

    monkeypatch.delenv("STREAM_SIMULATOR_TOKEN", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
