"""Valkey goes away and comes back: streams stay open, nothing that was acknowledged is lost."""

import asyncio

import pytest

from chassis.testing.valkey import ValkeyProcess


@pytest.fixture
async def replicas(start, valkey_process):
    """Two replicas on one Valkey; one that is gone refuses at once, so nobody need be impatient."""
    options = {"valkey_url": valkey_process.url, "valkey_timeout_seconds": 10.0}
    async with start(**options) as one, start(**options) as two:
        yield one, two


async def test_an_outage_is_said_and_outlived(replicas, valkey_process: ValkeyProcess, order_event):
    """`degraded`, then `live`; what either replica took before and after arrives once, in order."""
    one, two = replicas
    async with two.open() as client:
        await client.subscribe("sensors/*", "orders")
        await one.measure("a", 1, 2)
        assert await client.values(2) == [1, 2]
        valkey_process.kill()
        assert (await client.until("status"))["state"] == "degraded"
        await client.say(type="ping")
        await client.until("pong")

        refused = await one.http.post(
            "/v1/sensors/a/readings",
            json={"value": 9, "unit": "Cel", "at": "2026-05-04T12:00:00Z"},
            headers=one._meter,
        )
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.headers["content-type"] == "application/problem+json"
        event = order_event()
        assert (await one.deliver(event)).status_code == 503
        assert (await one.http.get("/readyz")).status_code == 200
        headers = {"Authorization": f"Bearer {one.token()}"}
        assert (await one.http.post("/v1/stream/tickets", headers=headers)).status_code == 503
        assert "stream_log_up 0.0" in (await one.http.get("/metrics")).text

        valkey_process.start()
        async with asyncio.timeout(20):
            while (await one.deliver(event)).status_code != 204:  # noqa: ASYNC110  (a relay)
                await asyncio.sleep(0.05)
        await one.measure("a", 3)
        told = await client.events(2)
        assert [each["topic"] for each in told] == ["orders", "sensors/a"]
        # What the log held is read first, so `live` may come after it.
        while {"type": "status", "state": "live"} not in client.seen:
            await client.next()
        assert "gap" not in {each["type"] for each in client.seen}


async def test_who_comes_back_during_the_outage_is_served_from_memory(
    replicas, valkey_process, until
):
    """The past is in every replica; the present follows when it can."""
    one, two = replicas
    async with one.open() as client:
        await client.subscribe("sensors/a")
        await two.measure("a", 1, 2, 3)
        first = (await client.events(3))[0]
    await until(lambda: two.streams.hub.loaded and two.streams.hub.head == one.streams.hub.head)
    valkey_process.kill()
    await until(lambda: two.streams.hub.degraded)
    async with two.open() as client:
        await client.subscribe("sensors/a", last_event_id=first["id"])
        assert await client.values(2) == [2, 3]
        assert client.seen[1] == {"type": "status", "state": "degraded"}
        valkey_process.start()
        await client.until("status")
        await two.measure("a", 4)
        assert await client.values(1) == [4]


async def test_lost_data_is_a_gap(replicas, valkey_process):
    """Valkey comes back empty: whoever listens is told, and so is who names an event of before."""
    one, _ = replicas
    async with one.open() as client:
        await client.subscribe("sensors/a")
        await one.measure("a", 1)
        [last] = await client.events(1)
        valkey_process.kill()
        valkey_process.forget()
        await client.until("status")
        valkey_process.start()
        assert (await client.until("gap"))["topics"] == ["sensors/a"]
        await client.until("status")
        await one.measure("a", 2)
        assert await client.values(1) == [2]
    async with one.open() as client:
        await client.subscribe("sensors/a", last_event_id=last["id"])
        assert await client.values(1) == [2]
        assert {"type": "gap", "topics": ["sensors/a"]} in client.seen


async def test_a_start_without_valkey_is_a_start(start, valkey_process):
    """It is ready and says that it is degraded; a subscription begins where it was made."""
    valkey_process.kill()
    async with start(valkey_url=valkey_process.url, valkey_timeout_seconds=10.0) as replica:
        assert (await replica.http.get("/readyz")).status_code == 200
        async with replica.open() as client:
            await client.subscribe("sensors/a")
            assert {"type": "status", "state": "degraded"} in client.seen
            valkey_process.start()
            await client.until("status")
            await replica.measure("a", 1)
            assert await client.values(1) == [1]
            assert "gap" not in {each["type"] for each in client.seen}


async def test_a_new_replica_knows_the_past(start, valkey_process, until):
    """It reads what the others stored before it takes clients."""
    url = valkey_process.url
    async with start(valkey_url=url) as one:
        await until(lambda: one.streams.hub.loaded)
        async with one.open() as client:
            begin = (await client.subscribe("sensors/a"))["last_event_id"]
        await one.measure("a", *range(700))
    async with start(valkey_url=url) as two, two.open() as client:
        await client.subscribe("sensors/a", last_event_id=begin)
        assert await client.values(700) == list(range(700))
        assert "gap" not in {each["type"] for each in client.seen}


async def test_events_leave_in_order_though_a_stream_is_longer_than_a_read(
    start, valkey_process, order_event
):
    """A burst of one kind does not let another kind overtake it."""
    async with start(valkey_url=valkey_process.url) as replica, replica.open() as client:
        await client.subscribe("sensors/*", "orders")
        await asyncio.gather(
            replica.measure("a", *range(900)),
            replica.deliver(order_event()),
            replica.measure("b", *range(900)),
            replica.deliver(order_event()),
        )
        ids = [tuple(map(int, each["id"].split("-"))) for each in await client.events(1802)]
        assert ids == sorted(set(ids))


async def test_a_reader_that_is_overtaken_says_so(start, valkey_process):
    """What was cut before it was read is a gap, to who listens and to who comes back."""
    url = valkey_process.url
    async with start(valkey_url=url, history_messages=10) as replica, replica.open() as client:
        await client.subscribe("sensors/a", "orders")
        await replica.measure("a", 1)
        [last] = await client.events(1)
        await replica.measure("a", *range(2, 902))  # at once: no reader comes in between
        assert (await client.until("gap"))["topics"] == ["sensors/a"]
        await replica.measure("a", 902)
        assert await client.values(1) == [902]
        async with replica.open() as again:
            await again.subscribe("sensors/a", last_event_id=last["id"])
            assert await again.values(10) == list(range(893, 903))
            assert {"type": "gap", "topics": ["sensors/a"]} in again.seen


async def test_a_long_read_is_no_gap(start, valkey_process):
    """Though the log is cut all the time: not beyond what was read."""
    url = valkey_process.url
    async with start(valkey_url=url, history_messages=1000) as replica, replica.open() as client:
        await client.subscribe("sensors/a")
        for number in range(0, 4500, 900):
            await replica.measure("a", *range(number, number + 900))
            assert await client.values(900) == list(range(number, number + 900))
        assert not {"gap", "dropped"} & {each["type"] for each in client.seen}
