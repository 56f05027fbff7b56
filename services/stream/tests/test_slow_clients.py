"""A client that does not read costs itself something, and nobody else."""

import asyncio
import json
import socket

import pytest

from chassis.testing import FakeClock
from stream.entries import Control, Entry, Heartbeat
from stream.history import History
from stream.hub import Hub
from stream.messages import Status
from stream.metrics import StreamMetrics
from stream.positions import Position
from stream.session import Session
from stream.subscriber import CONTROLS, Ending, Subscriber

BIG = "x" * 3000


@pytest.fixture
def hub():
    from prometheus_client import CollectorRegistry

    metrics = StreamMetrics(CollectorRegistry())
    hub = Hub(History(100), metrics, FakeClock(), burst_messages=1000)
    hub.go_live(Position(1, 0))
    return hub


def entry(number, topic="sensors/a", body='{"topic":"sensors/a"}'):
    return Entry(Position(2, number), topic, body)


def subscriber(hub, dropped, **options):
    values = {"messages": 4, "bytes_": 10_000, "policy": "drop_oldest"} | options
    made = Subscriber(hub, on_dropped=dropped.append, **values)
    hub.attach(made)
    hub.join(made, ["sensors/a"])
    return made


async def taken(subscriber):
    """Return what can be sent now."""
    found = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                item = await subscriber.next()
        except TimeoutError:
            return found
        if item is None:
            return [*found, None]
        found.append(item.position.number if isinstance(item, Entry) else json.loads(item.text))


async def test_the_oldest_events_make_room(hub):
    """The client gets the newest, and is told before them how many are missing."""
    dropped = []
    slow = subscriber(hub, dropped)
    await hub.publish([entry(number) for number in range(10)])
    assert slow.depth == 4
    assert await taken(slow) == [{"type": "dropped", "count": 6}, 6, 7, 8, 9]
    assert [each.position.number for each in dropped] == [0, 1, 2, 3, 4, 5]
    await hub.publish([entry(10)])
    assert await taken(slow) == [10]


async def test_bytes_are_bounded_too(hub):
    """A few large events fill a queue as well; one larger than the bound still goes alone."""
    slow = subscriber(hub, [], bytes_=7000)
    await hub.publish([entry(number, body=f'{{"d":"{BIG}"}}') for number in range(5)])
    assert slow.depth == 2
    assert await taken(slow) == [{"type": "dropped", "count": 3}, 3, 4]
    await hub.publish([entry(6, body=f'{{"d":"{BIG * 4}"}}')])
    assert await taken(slow) == [6]


async def test_the_other_policy_ends_the_stream(hub):
    """1013: the client comes back with its last event id and misses nothing."""
    dropped = []
    slow = subscriber(hub, dropped, policy="disconnect")
    await hub.publish([entry(number) for number in range(5)])
    assert await taken(slow) == [None]
    assert slow.ending.code == 1013
    assert slow.depth == 0
    await hub.publish([entry(5)])
    assert slow.depth == 0


async def test_answers_wait_in_a_bounded_queue_as_well(hub):
    """Who asks and does not read is not read any more."""
    client = subscriber(hub, [])
    await client.room()
    for _ in range(CONTROLS):
        client.say(Control(Status(state="live")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.room()
    await client.next()
    await client.room()


async def test_the_past_is_taken_piece_by_piece(hub):
    """However much was missed, little of it waits; what happens meanwhile comes after it."""
    await hub.publish([entry(number) for number in range(90)])
    client = subscriber(hub, [])
    hub.leave(client, ["sensors/a"])
    client.replay({"sensors/a"}, Position(2, 4))
    first = await client.next()
    await hub.publish([entry(90), entry(91)])
    assert client.depth == 0
    rest = await taken(client)
    assert [first.position.number, *rest] == list(range(5, 92))
    await hub.publish([entry(92)])
    assert client.depth == 1


async def test_a_replay_that_is_overtaken_is_a_gap(hub):
    """A client that reads its past more slowly than the history moves on is told."""
    await hub.publish([entry(number) for number in range(100)])
    client = subscriber(hub, [])
    hub.leave(client, ["sensors/a"])
    client.replay({"sensors/a"}, Position(2, 9))
    for _ in range(64):
        await client.next()
    await hub.publish([entry(number) for number in range(100, 250)])
    rest = await taken(client)
    assert rest[0] == {"type": "gap", "topics": ["sensors/a"]}
    assert rest[1:] == list(range(150, 250))


async def test_the_past_of_a_topic_does_not_overtake_what_waits(hub):
    """So that who skips ids that are not greater skips nothing."""
    client = subscriber(hub, [], messages=10)
    await hub.publish([entry(number, f"sensors/{'ab'[number % 2]}") for number in range(6)])
    client.replay({"sensors/b"}, Position(2, 0))
    assert await taken(client) == [0, 1, 2, 3, 4, 5]
    assert await taken(client) == []


async def test_one_topic_more_comes_among_what_waits(hub):
    """And who asks for all topics from an id on gets each event once, whatever waited."""
    client = subscriber(hub, [], messages=10)
    session = Session(hub, client, "u1", FakeClock(), most_topics=5)
    await hub.publish([entry(1)])
    session.subscribe(["sensors/b"], None)
    await hub.publish([entry(2, "sensors/b"), entry(3)])
    answer, *events = await taken(client)
    assert (answer["last_event_id"], events) == ("2-1", [1, 2, 3])
    await hub.publish([entry(4), entry(5, "sensors/b")])
    session.subscribe(["sensors/a", "sensors/b"], "2-2")
    await hub.publish([entry(6)])
    assert (await taken(client))[1:] == [3, 4, 5, 6]


async def test_of_a_topic_that_was_left_nothing_comes(hub):
    """Neither what waits in the queue, nor what was taken from the history."""
    await hub.publish([entry(number, "sensors/b") for number in range(3)])
    client = subscriber(hub, [], messages=10)
    client.replay({"sensors/b"}, Position(1, 0))
    await hub.publish([entry(3), entry(4, "sensors/b")])
    assert (await client.next()).position.number == 0  # the others of the piece wait
    client.forget({"sensors/b"})
    hub.leave(client, {"sensors/b"})
    assert await taken(client) == [3]
    hub.join(client, ["sensors/b"])
    await hub.publish([entry(5), entry(6, "sensors/b")])
    client.forget({"sensors/a"})
    assert client.depth == 1
    assert await taken(client) == [6]


async def test_a_quiet_client_is_told_how_far_it_is(hub):
    """Once for each step, and only when nothing waits for it."""
    client = subscriber(hub, [])
    client.beat(None)
    assert await taken(client) == [{"type": "position", "last_event_id": "1-0"}]
    client.beat(None)
    assert await taken(client) == []
    await hub.publish([entry(1, "sensors/b"), entry(2)])
    client.beat(None)
    assert await taken(client) == [2]
    client.beat(None)
    assert await taken(client) == []
    await hub.publish([entry(3, "sensors/b")])
    for _ in range(3):  # it takes nothing
        client.beat(Heartbeat())
    assert await taken(client) == [{"type": "position", "last_event_id": "2-3"}]
    hub.load("sensors", [], Position(2, 9))
    await hub.publish([entry(10, "sensors/b")])
    client.beat(None)
    assert await taken(client) == []


async def test_the_past_waits_until_all_kinds_are_read_again(hub):
    """Else events of a kind that is read later would come after greater ids."""
    client = subscriber(hub, [])
    hub.leave(client, ["sensors/a"])
    hub.load("sensors", [entry(5)], Position(2, 4))
    client.replay({"sensors/a", "orders/u1"}, Position(2, 4))
    assert await taken(client) == []
    await hub.publish([entry(3, "orders/u1"), entry(4, "orders/u1")])
    hub.go_live(Position(2, 5))
    assert await taken(client) == [5]


async def test_an_end_comes_before_everything_that_waits(hub):
    """The first reason stays."""
    client = subscriber(hub, [])
    await hub.publish([entry(1)])
    client.say(Heartbeat())
    client.end(Ending(4401, "first"))
    client.end(Ending(1012, "second"))
    assert await client.next() is None
    assert client.ending.code == 4401


async def stalled(replica, topic):
    """Open a WebSocket by hand that subscribes and then never reads: small buffers fill soon."""
    host, port = replica.url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, int(port)))
    head = (
        f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {replica.token('u9')}\r\n\r\n"
    )
    await loop.sock_sendall(raw, head.encode())
    assert (await loop.sock_recv(raw, 12)).endswith(b"101")
    text = json.dumps({"type": "subscribe", "topics": [topic]}).encode()
    assert len(text) < 126
    await loop.sock_sendall(raw, bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return raw


async def test_a_stalled_client_delays_nobody(start, until):
    """Every event reaches the others while its own are dropped, and its queue stays bounded."""
    async with start(queue_messages=16, event_bytes=60_000) as replica, replica.open() as client:
        raw = await stalled(replica, "sensors/*")
        try:
            await client.subscribe("sensors/*")
            hub = replica.streams.hub
            await until(lambda: len(hub._wanted.get("sensors/*", ())) == 2)
            dropped = replica.streams.metrics.dropped["sensors"]
            sent = 0
            while not dropped._value.get():
                await replica.measure("a", *range(sent, sent + 500))
                sent += 500
                assert sent <= 100_000
                assert await client.values(500) == list(range(sent - 500, sent))
            depths = sorted(each.subscriber.depth for each in replica.streams.connections.open)
            assert depths == [0, 16]
        finally:
            raw.close()


async def test_a_stalled_client_is_cut_off_in_the_end(start, until):
    """With the policy `disconnect` its place is free again though it never takes the close."""
    clock = FakeClock()
    async with start(clock=clock, queue_messages=16, slow_clients="disconnect") as replica:
        raw = await stalled(replica, "sensors/*")
        try:
            await until(lambda: replica.streams.hub._wanted.get("sensors/*"))
            [connection] = replica.streams.connections.open
            while connection.subscriber.ending is None:
                await replica.measure("a", *range(1000))
            assert connection.subscriber.ending.code == 1013
            assert replica.streams.connections.open
            for _ in range(3):
                await clock.wait_for_sleepers(1)
                clock.advance(5)
                await asyncio.sleep(0.05)
            await until(lambda: not replica.streams.connections.open)
        finally:
            raw.close()
