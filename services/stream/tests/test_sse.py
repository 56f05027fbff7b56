"""Server-sent events: the same topics for who only listens."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from chassis.testing import FakeClock
from stream.entries import Entry
from stream.positions import Position


class Lines:
    """Reads server-sent events off a response."""

    def __init__(self, response):
        self._lines = response.aiter_lines()

    async def next(self):
        """Return the next event as its fields; a comment is the field ''."""
        fields = {}
        async with asyncio.timeout(45):
            async for line in self._lines:
                if not line:
                    return fields
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        raise EOFError

    async def until(self, kind):
        """Return the next event of a type, `message` by default, as (fields, data)."""
        while True:
            fields = await self.next()
            if "data" in fields and fields.get("event", "message") == kind:
                return fields, json.loads(fields["data"])


@asynccontextmanager
async def listening(replica, *topics, headers=None, **params):
    headers = {"Authorization": f"Bearer {replica.token()}", **(headers or {})}
    params = {"topics": list(topics), **params}
    async with replica.http.stream("GET", "/v1/events", params=params, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield Lines(answer)


async def test_events_come_with_their_ids(replica, order_event):
    """As WebSockets get them."""
    async with listening(replica, "orders", "sensors/*") as lines:
        await lines.until("welcome")
        fields, subscribed = await lines.until("subscribed")
        assert fields["id"] == subscribed["last_event_id"]
        await replica.measure("a", 1)
        await replica.deliver(order_event())
        fields, event = await lines.until("message")
        assert (fields["id"], event["data"]["value"]) == (event["id"], 1)
        fields, event = await lines.until("message")
        assert event["topic"] == "orders"


@pytest.mark.parametrize("how", ["header", "query"])
async def test_who_comes_back_names_its_last_event(replica, how):
    """By the header that browsers send, or in the query."""
    async with listening(replica, "sensors/a") as lines:
        await lines.until("subscribed")
        await replica.measure("a", 1, 2, 3)
        fields, _ = await lines.until("message")
    last = fields["id"]
    more = {"headers": {"Last-Event-ID": last}} if how == "header" else {"last_event_id": last}
    async with listening(replica, "sensors/a", **more) as lines:
        assert [(await lines.until("message"))[1]["data"]["value"] for _ in range(2)] == [2, 3]


async def test_heartbeats_are_comments(start):
    """After fifteen quiet seconds, again and again."""
    clock = FakeClock()
    async with start(clock=clock) as replica, listening(replica, "orders") as lines:
        await lines.until("subscribed")
        for _ in range(2):
            clock.advance(16)
            assert await lines.next() == {"": ""}


async def test_a_quiet_stream_is_told_how_far_it_is(start):
    """By an event whose id the browser keeps."""
    clock = FakeClock()
    async with start(clock=clock) as replica, listening(replica, "orders") as lines:
        await lines.until("subscribed")
        await replica.measure("a", 1)
        clock.advance(16)
        fields, told = await lines.until("position")
        assert fields["id"] == told["last_event_id"] == str(replica.streams.hub.head)


async def test_a_ticket_opens_it(start):
    """An EventSource can send no header."""
    async with start() as replica:
        headers = {"Authorization": f"Bearer {replica.token()}"}
        ticket = (await replica.http.post("/v1/stream/tickets", headers=headers)).json()["ticket"]
        params = {"topics": "orders", "ticket": ticket}
        async with replica.http.stream("GET", "/v1/events", params=params) as answer:
            assert answer.status_code == 200
        again = await replica.http.get("/v1/events", params=params)
        assert again.status_code == 401


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 422),
        ({"topics": [f"sensors/{number}" for number in range(4)]}, 422),
        ({"topics": "orders/u2"}, 422),
        ({"topics": "orders", "last_event_id": "x"}, 422),
        ({"topics": "orders", "last_event_id": "99999999999999-0"}, 422),
    ],
)
async def test_bad_questions_are_problems(start, params, status):
    """As everywhere."""
    async with start(topics_per_connection=3) as replica:
        headers = {"Authorization": f"Bearer {replica.token()}"}
        answer = await replica.http.get("/v1/events", params=params, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_it_needs_credentials_and_the_scope(start):
    """401 and 403."""
    async with start() as replica:
        params = {"topics": "orders"}
        assert (await replica.http.get("/v1/events", params=params)).status_code == 401
        headers = {"Authorization": f"Bearer {replica.token(scopes='profile')}"}
        answer = await replica.http.get("/v1/events", params=params, headers=headers)
        assert answer.status_code == 403
        refused = replica.streams.metrics.refused
        assert refused["credentials"]._value.get() == refused["scope"]._value.get() == 1


async def test_a_full_process_leaves_the_ticket_alone(start, until):
    """It is good where, or when, there is a place."""
    async with start(connections=1) as replica:
        headers = {"Authorization": f"Bearer {replica.token()}"}
        ticket = (await replica.http.post("/v1/stream/tickets", headers=headers)).json()["ticket"]
        params = {"topics": "orders", "ticket": ticket}
        async with replica.open("u2") as client:
            await client.next()
            assert (await replica.http.get("/v1/events", params=params)).status_code == 503
        await until(lambda: replica.streams.metrics.connections["websocket"]._value.get() == 0)
        async with replica.http.stream("GET", "/v1/events", params=params) as answer:
            assert answer.status_code == 200


async def test_a_stream_is_no_slow_request(start):
    """It is counted when it begins: how long it is open is no latency, and no request in flight."""
    async with start() as replica, listening(replica, "orders") as lines:
        await lines.until("subscribed")
        text = (await replica.http.get("/metrics")).text
        assert 'http_requests_total{method="GET",route="/v1/events",status="200"} 1.0' in text
        bucket = 'http_request_duration_seconds_bucket{le="2.5",method="GET",route="/v1/events"'
        assert any(line.startswith(bucket) and line.endswith(" 1.0") for line in text.splitlines())
        assert 'http_requests_in_flight{method="GET"} 0.0' in text
        assert 'stream_connections{transport="sse"} 1.0' in text


async def test_it_ends_with_the_token(start):
    """It says why; a browser that comes back with the same token is told 401."""
    clock = FakeClock()
    async with start(clock=clock) as replica, listening(replica, "orders") as lines:
        await lines.until("subscribed")
        clock.advance(3700)
        _, closing = await lines.until("closing")
        assert (closing["code"], closing["reason"]) == (4401, "the access token is expired")
        with pytest.raises(EOFError):
            await lines.until("never")


async def test_a_drain_says_goodbye_and_why(start):
    """With the time after which the browser comes back by itself."""
    async with start(goodbye_spread_seconds=0.1) as replica, listening(replica, "orders") as lines:
        await lines.until("subscribed")
        replica.app.state.runtime.lifecycle.draining = True
        fields, goodbye = await lines.until("goodbye")
        assert fields["retry"] == str(goodbye["retry_ms"])
        assert (await lines.until("closing"))[1]["code"] == 1012
        with pytest.raises(EOFError):
            await lines.until("never")


async def test_a_slow_listener_is_told_why(start):
    """As a WebSocket is by its close code."""
    async with (
        start(slow_clients="disconnect", queue_messages=4) as replica,
        listening(replica, "sensors/a") as lines,
    ):
        await lines.until("subscribed")
        [connection] = replica.streams.connections.open
        for number in range(5):  # at once: its writer has no turn in between
            connection.subscriber.offer(Entry(Position(1, number), "sensors/a", "{}"))
        assert (await lines.until("closing"))[1]["code"] == 1013
