"""What a client of the WebSocket sees: its own events, in order, once, also after it was away."""

import asyncio
import json

import pytest

from chassis.testing import FakeClock
from stream.positions import Position


async def test_an_order_event_reaches_its_owner(replica, order_event):
    """As it was sent, with an id, and nobody else gets it."""
    async with replica.open("u1") as owner, replica.open("u2") as other:
        await owner.subscribe("orders")
        await other.subscribe("orders")
        sent = order_event("u1")
        assert (await replica.deliver(sent)).status_code == 204
        [told] = await owner.events(1)
        assert told["topic"] == "orders"
        assert told["event"] == "order.confirmed"
        assert told["time"] == sent["time"]
        assert told["data"] == sent["data"]
        assert Position.parse(told["id"]) > Position(0, 0)
        await replica.deliver(order_event("u2", data={"owner": "u2", "order_id": "o2"}))
        [first] = await other.events(1)
        assert first["data"]["order_id"] == "o2"


async def test_a_notification_reaches_its_recipient(replica, order_event):
    """Under its own topic."""
    async with replica.open() as client:
        await client.subscribe("notifications", "orders")
        data = {"recipient": "u1", "title": "Order confirmed"}
        event = order_event(
            type="notification.created", source="/services/notifications", data=data
        )
        assert (await replica.deliver(event)).status_code == 204
        [told] = await client.events(1)
        assert (told["topic"], told["data"]) == ("notifications", data)


async def test_an_event_that_comes_again_is_streamed_once(replica, order_event):
    """However often a relay delivers it, one after the other or at once."""
    async with replica.open() as client:
        await client.subscribe("orders")
        event = order_event()
        answers = await asyncio.gather(*(replica.deliver(event) for _ in range(5)))
        answers.append(await replica.deliver(event))
        assert {answer.status_code for answer in answers} == {204}
        last = order_event()
        await replica.deliver(last)
        ids = [told["data"]["order_id"] for told in await client.events(2)]
        assert len(ids) == 2
        stored = replica.streams.metrics
        assert stored.stored["orders"]._value.get() == 2
        assert stored.repeated["orders"]._value.get() == 5


async def test_sensors_by_name_and_all_of_them(replica):
    """A client of both topics gets a reading once."""
    async with replica.open() as one, replica.open() as every, replica.open() as both:
        await one.subscribe("sensors/a")
        await every.subscribe("sensors/*")
        await both.subscribe("sensors/a", "sensors/*")
        await replica.measure("a", 1, 2)
        await replica.measure("b", 3)
        await replica.measure("a", 4)
        assert await one.values(3) == [1, 2, 4]
        assert await every.values(4) == [1, 2, 3, 4]
        assert await both.values(4) == [1, 2, 3, 4]


async def test_who_was_away_gets_what_it_missed(replica, order_event):
    """After the last event, over all topics in one order, then the present; nothing twice."""
    async with replica.open() as client:
        await client.subscribe("orders", "sensors/*")
        await replica.measure("a", 1)
        [last] = await client.events(1)
    for number in range(2, 200, 33):
        await replica.measure("a", *range(number, number + 33))
        await replica.deliver(order_event())
    async with replica.open() as client:
        answer = await client.subscribe("orders", "sensors/*", last_event_id=last["id"])
        assert answer["last_event_id"] == last["id"]
        await replica.measure("a", 200)
        told = await client.events(199 + 6)
        positions = [Position.parse(each["id"]) for each in told]
        assert positions == sorted(set(positions))
        readings = [each for each in told if each["topic"] == "sensors/a"]
        assert [each["data"]["value"] for each in readings] == list(range(2, 201))
        assert {each["type"] for each in client.seen} == {"welcome", "subscribed", "event"}


async def test_the_answer_to_a_subscription_says_where_it_begins(replica):
    """Who lost the stream before the first event resumes there."""
    async with replica.open() as client:
        begin = (await client.subscribe("sensors/a"))["last_event_id"]
    await replica.measure("a", 1)
    async with replica.open() as client:
        await client.subscribe("sensors/a", last_event_id=begin)
        assert await client.values(1) == [1]
        assert "gap" not in {each["type"] for each in client.seen}


async def test_an_id_older_than_what_is_kept_is_a_gap(start, log_url, until):
    """Said before the oldest event that is kept."""
    async with start(valkey_url=log_url, history_messages=10) as replica:
        hub = replica.streams.hub
        async with replica.open() as client:
            begin = (await client.subscribe("sensors/a"))["last_event_id"]
        await replica.measure("a", *range(500))
        await until(lambda: hub.loaded and hub.history.floor("sensors") > Position.parse(begin))
        async with replica.open() as client:
            await client.subscribe("sensors/a", last_event_id=begin)
            assert (await client.until("gap")) == {"type": "gap", "topics": ["sensors/a"]}
            assert await client.values(10) == list(range(490, 500))


async def test_unsubscribed_topics_come_no_more(replica):
    """Those that stay do."""
    async with replica.open() as client:
        await client.subscribe("sensors/a", "sensors/b")
        await client.say(type="unsubscribe", topics=["sensors/a"])
        await client.until("unsubscribed")
        await replica.measure("a", 1)
        await replica.measure("b", 2)
        assert await client.values(1) == [2]


async def test_a_topic_twice_comes_once(replica):
    """A second subscription changes nothing."""
    async with replica.open() as client:
        await client.subscribe("sensors/a")
        await client.subscribe("sensors/a")
        await replica.measure("a", 1, 2)
        assert await client.values(2) == [1, 2]


async def test_a_quiet_stream_stays_where_the_log_is(start, log_url, until):
    """However much others get meanwhile, who comes back after it misses nothing: no gap."""
    clock = FakeClock()
    async with start(clock=clock, valkey_url=log_url, history_messages=100) as replica:
        hub = replica.streams.hub
        async with replica.open() as client:
            begin = (await client.subscribe("orders", "sensors/a"))["last_event_id"]
            for _ in range(10):
                before = hub.head
                await replica.measure("b", *range(50))
                await until(lambda before=before: hub.head > before)
            await until(lambda: hub.history.floor("sensors") > Position.parse(begin))
            await until(lambda: hub.loaded)
            clock.advance(16)
            told = await client.until("position")
        assert hub.history.floor("sensors") < Position.parse(told["last_event_id"]) <= hub.head
        async with replica.open() as client:
            await client.subscribe("orders", "sensors/a", last_event_id=told["last_event_id"])
            await replica.measure("a", 7)
            assert await client.values(1) == [7]
            assert "gap" not in {each["type"] for each in client.seen}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no JSON", "bad-message"),
        ("{}", "bad-message"),
        ('{"type": "shout"}', "bad-message"),
        ('{"type": "subscribe", "topics": []}', "bad-message"),
        ('{"type": "subscribe", "topics": ["orders/u2"]}', "bad-message"),
        ('{"type": "subscribe", "topics": ["sensors/a\\n"]}', "bad-message"),
        ('{"type": "subscribe", "topics": ["orders"], "last_event_id": "x"}', "bad-message"),
        (
            '{"type": "subscribe", "topics": ["orders"], "last_event_id": "99999999999999-0"}',
            "bad-event-id",
        ),
        ('{"type": "auth", "token": "x"}', "bad-token"),
        (b"binary", "bad-message"),
    ],
)
async def test_a_bad_message_is_told_and_nothing_else_happens(start, message, code):
    """The stream goes on."""
    async with start() as replica, replica.open() as client:
        await client.socket.send(message)
        error = await client.until("error")
        assert error["code"] == code
        assert error["detail"]
        await client.say(type="ping")
        assert await client.next() == {"type": "pong"}


async def test_only_bad_messages_end_the_stream(start):
    """1008 after twenty in a row."""
    async with start() as replica, replica.open() as client:
        for _ in range(20):
            await client.socket.send("nonsense")
        assert (await client.closed())[0] == 1008


async def test_too_long_a_message_ends_the_stream(start):
    """1009."""
    async with start(client_message_bytes=1024) as replica, replica.open() as client:
        await client.socket.send(json.dumps({"type": "auth", "token": "x" * 2000}))
        assert (await client.closed())[0] == 1009


async def test_topics_are_limited(start):
    """More than a stream takes are refused as a whole."""
    async with start(topics_per_connection=3) as replica, replica.open() as client:
        await client.subscribe("sensors/a", "sensors/b")
        await client.say(type="subscribe", topics=["sensors/c", "sensors/d"])
        assert (await client.until("error"))["code"] == "too-many-topics"
        await client.subscribe("sensors/c")


async def test_a_fault_of_the_sender_ends_the_stream(start, caplog, until):
    """A client of a stream that sends no more would wait for ever."""
    async with start() as replica:
        async with replica.open() as client:
            await client.subscribe("sensors/a")
            [connection] = replica.streams.connections.open
            connection.subscriber.say("no message")
            code, _ = await client.closed()
        assert code in (1006, 1011)
        await until(lambda: not replica.streams.connections.open)
    assert "has no attribute 'text'" in caplog.text


async def test_two_replicas_stream_what_either_takes(start, valkey_process, order_event):
    """In the same order with the same ids, so that a client may go on at the other one."""
    url = valkey_process.url
    async with (
        start(valkey_url=url) as one,
        start(valkey_url=url) as two,
        one.open() as at_one,
        two.open() as at_two,
    ):
        await at_one.subscribe("sensors/*", "orders")
        await at_two.subscribe("sensors/*", "orders")
        event = order_event()
        for number in range(0, 50, 5):
            await (one, two)[number // 5 % 2].measure("a", *range(number, number + 5))
        await asyncio.gather(one.deliver(event), two.deliver(event))
        first, second = await at_one.events(51), await at_two.events(51)
        assert first == second
        assert [each["data"]["value"] for each in first[:50]] == list(range(50))
        async with two.open() as client:
            await client.subscribe("sensors/*", "orders", last_event_id=first[9]["id"])
            assert await client.events(41) == first[10:]


async def test_the_document_describes_every_message(start):
    """AsyncAPI: each operation names messages that are there."""
    async with start() as replica:
        document = (await replica.http.get("/asyncapi.json")).json()
    assert document["asyncapi"].startswith("3.")
    messages = document["components"]["messages"]
    assert {"Subscribe", "Auth", "Event", "Gap", "Dropped", "Goodbye"} <= set(messages)
    for name in messages:
        assert document["components"]["schemas"][name]["properties"]["type"]["const"]
    for operation in document["operations"].values():
        for reference in operation["messages"]:
            assert reference["$ref"].rpartition("/")[2] in messages


async def test_a_plain_get_is_told_that_this_is_a_websocket(replica):
    """426 (RFC 9110, 15.5.22), and where the same is without one."""
    answer = await replica.http.get("/v1/stream")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "WebSocket" in answer.json()["detail"]
    assert "/v1/stream" not in (await replica.http.get("/openapi.json")).json()["paths"]
