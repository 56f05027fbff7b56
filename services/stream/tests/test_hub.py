"""The hub, as the log fills it."""

import asyncio

from prometheus_client import CollectorRegistry

from chassis.testing import FakeClock
from stream.entries import Entry
from stream.history import History
from stream.hub import Hub
from stream.metrics import StreamMetrics
from stream.positions import Position
from stream.subscriber import Subscriber


def entries(topic, numbers):
    """Entries of one millisecond."""
    return [Entry(Position(2000, number), topic, '{"data": 1}', "") for number in numbers]


async def test_who_waited_gets_all_kinds_whichever_was_read_first():
    """A kind that was loaded late knows later events than the one that is read after it."""
    hub = Hub(History(1000), StreamMetrics(CollectorRegistry()), FakeClock())
    client = Subscriber(
        hub, messages=256, bytes_=1_000_000, policy="drop_oldest", on_dropped=lambda _: None
    )
    client.replay({"sensors/*", "orders/u1"}, Position(1000, 0), fresh=True)
    got = []

    async def write():
        while len(got) < 202:
            got.append(await client.next())

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    began = Position(900, 0)
    hub.load("orders", [], began)
    hub.load("sensors", entries("sensors/a", range(2, 202)), began)
    await hub.publish(entries("orders/u1", range(2)))
    hub.go_live(began)
    async with asyncio.timeout(60):
        await writing
    assert [each.position.number for each in got] == list(range(202))
