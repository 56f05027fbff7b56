"""Live streams through the real gateway: two replicas, one Valkey, and everything that fails.

What is checked is always the same: whatever was acknowledged to who sent it arrives at everybody
who listens, once and in order, however often the streams are cut on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.asyncio.client import connect

from chassis.testing.valkey import ValkeyProcess
from scripts.local.ports import pick_free
from stream.client import StreamClient
from tests.local.platform_handle import eventually
from tests.system.harness import Buyer, Second, Shop
from tests.system.test_restarts import second_gateway

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LISTENERS = 6
BATCH = 250
SECONDS = 90.0


@dataclass
class World:
    """The platform with a Valkey, a second replica of stream, and an Envoy in front of both."""

    shop: Shop
    valkey: ValkeyProcess
    second: Second
    url: str
    buyer: Buyer
    thread: ThreadPoolExecutor
    """For what starts processes beside the event loop: they end with the thread of their start."""

    numbers: Iterator[int] = field(default_factory=itertools.count)

    def sensor(self) -> str:
        """Return the name of a sensor of this test's own."""
        return f"s{next(self.numbers)}-{time.monotonic_ns()}"

    def listener(self, url: str | None = None) -> StreamClient:
        """Return a client that comes back after every interruption."""

        async def token() -> str:
            return self.buyer.token

        return StreamClient((url or self.url).replace("http", "ws", 1) + "/v1/stream", token)


@pytest.fixture(scope="module")
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One platform for these tests."""
    directory = tmp_path_factory.mktemp("stream")
    with contextlib.ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1))
        valkey = stack.enter_context(ValkeyProcess(directory / "valkey"))
        env = {
            "SLIPWAY_VALKEY_URL": valkey.url,
            "STREAM_VALKEY_TIMEOUT_SECONDS": "1",
            "STREAM_CONNECTIONS_PER_USER": "100",
            "STREAM_GOODBYE_SPREAD_SECONDS": "1",
            "NOTIFICATIONS_OUTBOX_BACKOFF_CAP_SECONDS": "1",
        }
        shop = Shop.open(directory / "home", **env)
        stack.callback(shop.close)
        [port] = pick_free(1)
        second = stack.enter_context(shop.second("stream", port))
        url, _ = stack.enter_context(second_gateway(shop, directory, {"stream": port}))
        yield World(shop, valkey, second, url, shop.buyers(1)[0], thread)


@pytest.fixture
def world(running_world: World) -> World:
    """The platform with every process running."""
    running_world.valkey.ensure()
    running_world.second.ensure()
    shop = running_world.shop
    shop.recover()
    # A pooled connection to the Valkey of before is noticed, with a 503, when it is used next.
    reading = {"value": 0, "unit": "1", "at": "2026-05-04T12:00:00Z"}
    for url in (shop.url("stream"), running_world.second.url):

        def takes(url: str = url) -> bool:
            with httpx2.Client(trust_env=False, timeout=60, headers=shop.admin.headers) as client:
                path = f"{url}/v1/sensors/warm/readings"
                return all(client.post(path, json=reading).is_success for _ in range(5))

        eventually(takes, SECONDS)
    return running_world


@contextlib.asynccontextmanager
async def listening(world: World, count: int, *topics: str) -> AsyncIterator[list[list[Any]]]:
    """Run listeners; gives what each of them got so far."""
    got: list[list[Any]] = [[] for _ in range(count)]
    subscribed = [asyncio.Event() for _ in range(count)]

    async def listen(number: int) -> None:
        client = world.listener()

        def notice(message: dict[str, Any]) -> None:
            assert message["type"] not in {"gap", "dropped", "error"}, message
            if message["type"] == "subscribed":
                subscribed[number].set()

        client.notices = notice
        async for event in client.listen(*topics):
            got[number].append(event)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(listen(number)) for number in range(count)]
        async with asyncio.timeout(SECONDS):
            for event in subscribed:
                await event.wait()
        yield got
        for task in running:
            task.cancel()


@dataclass
class Meter:
    """Sends readings 0, 1, 2, … one after the other; knows which were acknowledged."""

    world: World
    sensor: str
    acknowledged: list[int] = field(default_factory=list)
    refused: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop. What got no 2xx is not sent again: it may be stored or not."""
        headers = self.world.shop.admin.headers
        async with httpx2.AsyncClient(trust_env=False, headers=headers, timeout=20) as client:
            for number in itertools.count():
                if stop.is_set():
                    return
                body = {"value": number, "unit": "1", "at": "2026-05-04T12:00:00Z"}
                status = 0
                with contextlib.suppress(httpx2.TransportError):
                    url = f"{self.world.url}/v1/sensors/{self.sensor}/readings"
                    status = (await client.post(url, json=body)).status_code
                assert status in {0, 202, 429, 503}, status
                if status == 202:
                    self.acknowledged.append(number)
                else:
                    self.refused += 1
                await asyncio.sleep(0.02)


async def measured(world: World, fault: Any, *, at_least: int = 100) -> Meter:
    """Let listeners listen and a meter measure while `fault` happens; check what arrived."""
    meter, stop = Meter(world, world.sensor()), asyncio.Event()
    async with listening(world, LISTENERS, f"sensors/{meter.sensor}") as got:
        sending = asyncio.create_task(meter.run(stop))
        await until(lambda: len(meter.acknowledged) >= at_least // 2)
        await asyncio.get_running_loop().run_in_executor(world.thread, fault)
        then = len(meter.acknowledged)
        await until(lambda: len(meter.acknowledged) >= max(at_least, then + 20))
        stop.set()
        await sending
        wanted = set(meter.acknowledged)
        await until(lambda: all(wanted <= set(values(each)) for each in got))
    for each in got:
        found = values(each)
        assert found == sorted(set(found)), "twice or out of order"
        assert wanted <= set(found), "lost"
        assert found == values(got[0]), "not the same for all"
    return meter


def values(events: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of readings."""
    return [int(event["data"]["value"]) for event in events]


async def until(condition: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  (anything may be asked)
            await asyncio.sleep(0.02)


async def test_a_buyer_hears_of_an_order_with_a_ticket(world: World) -> None:
    """As a browser does it; neither ticket nor token is written down anywhere."""
    shop = world.shop
    item, [buyer] = shop.item(5), shop.buyers(1)
    bought = shop.call("POST", "/v1/stream/tickets", who=buyer)
    assert bought.status_code == 201, bought.text
    ticket = bought.json()["ticket"]
    url = f"{world.url.replace('http', 'ws', 1)}/v1/stream?ticket={ticket}"
    async with connect(url, proxy=None, subprotocols=["slipway.v1"]) as stream:
        assert json.loads(await stream.recv())["type"] == "welcome"
        await stream.send('{"type":"subscribe","topics":["orders","notifications"]}')
        assert json.loads(await stream.recv())["type"] == "subscribed"
        answer = await asyncio.to_thread(shop.order, buyer, item)
        assert answer.status_code == 201, answer.text
        told = {}
        async with asyncio.timeout(SECONDS):
            while set(told) != {"order.confirmed", "notification.created"}:
                message = json.loads(await stream.recv())
                if message["type"] == "event":
                    told[message["event"]] = message["data"]
    order = answer.json()["id"]
    assert told["order.confirmed"]["order_id"] == order
    assert told["notification.created"]["data"]["order_id"] == order
    with pytest.raises(Exception, match="401"):
        await connect(url, proxy=None)
    logs = [*(shop.platform.home / "logs").iterdir(), *world.second.log.parent.iterdir()]
    for log in logs:
        text = log.read_text(errors="replace")
        assert ticket not in text, log
        assert buyer.token.rpartition(".")[2] not in text, log


async def test_server_sent_events_come_through_at_once(world: World) -> None:
    """Envoy neither buffers nor ends them; the unversioned event sink stays inside."""
    sensor = world.sensor()
    async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        headers = world.buyer.headers
        url = f"{world.url}/v1/events"
        params = {"topics": f"sensors/{sensor}"}
        async with client.stream("GET", url, params=params, headers=headers) as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            async for line in lines:
                if line == "event: subscribed":
                    break
            began = time.monotonic()
            body = {"value": 1, "unit": "1", "at": "2026-05-04T12:00:00Z"}
            sent = await client.post(
                f"{world.url}/v1/sensors/{sensor}/readings",
                json=body,
                headers=world.shop.admin.headers,
            )
            assert sent.status_code == 202
            async for line in lines:
                if '"event":"sensor.reading"' in line:
                    break
            assert time.monotonic() - began < 30
        for method, path in (("GET", "/events"), ("POST", "/events")):
            assert (await client.request(method, world.url + path)).status_code == 404
        assert (await client.post(f"{world.url}/v1/events", headers=headers)).status_code == 405


async def test_sigterm_under_load_misses_nothing(world: World) -> None:
    """Both replicas end and come back one after the other, as in a rollout."""

    def roll() -> None:
        world.second.end()
        world.second.start()
        world.shop.restart("stream", signal.SIGTERM)

    meter = await measured(world, roll)
    print(f"\n{len(meter.acknowledged)} readings, {meter.refused} refused, none lost")


async def test_kill_of_a_replica_misses_nothing(world: World) -> None:
    """SIGKILL says no goodbye: clients notice and come back at the other one."""

    def kill() -> None:
        assert world.second.process is not None
        world.second.process.kill()
        world.second.process.wait()
        world.second.start()
        world.shop.restart("stream", signal.SIGKILL)

    meter = await measured(world, kill)
    print(f"\n{len(meter.acknowledged)} readings, {meter.refused} refused, none lost")


async def test_valkey_killed_and_restarted(world: World) -> None:
    """Meanwhile 503 to who sends; streams stay open; nothing that was acknowledged is lost."""

    def outage() -> None:
        world.valkey.kill()
        eventually(lambda: world.shop.metric("stream", "stream_log_up") == 0, 30)
        assert world.shop.call("GET", "/readyz", at="stream").status_code == 200
        world.valkey.start()

    meter = await measured(world, outage)
    assert meter.refused
    eventually(lambda: world.shop.metric("stream", "stream_log_up") == 1, 30)
    print(f"\n{len(meter.acknowledged)} readings, {meter.refused} refused, none lost")


def stall(url: str, token: str, topic: str) -> socket.socket:
    """Open a stream, subscribe, and never read again."""
    parts = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(SECONDS)
    raw.connect((parts.hostname, parts.port))
    raw.sendall(
        (
            f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()
    )
    with contextlib.ExitStack() as stack:
        stack.callback(raw.close)
        answer = raw.recv(4096)
        assert b" 101 " in answer, answer
        stack.pop_all()
    text = json.dumps({"type": "subscribe", "topics": [topic]}).encode()
    raw.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return raw


async def test_a_reader_that_never_reads(world: World) -> None:
    """It loses events or, as it answers no ping, its stream; everybody else gets them all."""
    sensor, sent = world.sensor().ljust(64, "x"), 0  # buffers of megabytes fill sooner
    headers = world.shop.admin.headers
    reading = {"unit": "1", "at": "2026-05-04T12:00:00Z"}

    def total(name: str, **labels: str) -> float:
        return sum(metric(world, process, name, **labels) or 0 for process in ("stream", None))

    def dropped() -> float:
        return total("stream_messages_total", topic_kind="sensors", outcome="dropped")

    def streams() -> float:
        return total("stream_connections", transport="websocket")

    await until(lambda: streams() == 0)  # those of the tests before
    before = dropped()
    raw = await asyncio.to_thread(stall, world.url, world.buyer.token, "sensors/*")
    try:
        async with (
            httpx2.AsyncClient(trust_env=False, headers=headers, timeout=30) as client,
            listening(world, 1, f"sensors/{sensor}") as [got],
        ):
            assert streams() == 2
            while dropped() == before and streams() == 2:
                # Not more at once than a busy disk stores within the second that Valkey is given.
                batch = [{"value": sent + each, **reading} for each in range(BATCH)]
                answer = await client.post(
                    f"{world.url}/v1/sensors/{sensor}/readings", json={"readings": batch}
                )
                assert answer.status_code in {202, 429}, answer.text
                sent += BATCH if answer.status_code == 202 else 0
                assert sent < 500_000
            await until(lambda: len(got) == sent)
            assert values(got) == list(range(sent))
        await until(lambda: streams() == 0)  # the stalled one is cut off as well
    finally:
        raw.close()
    print(f"\n{sent} readings past a stalled client")


def metric(world: World, process: str | None, name: str, **labels: str) -> float | None:
    """Read a metric of the runner's stream process, or (None) of the second one."""
    if process is not None:
        return world.shop.metric(process, name, **labels)
    text = world.shop.get(f"{world.second.url}/metrics").text
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in text.splitlines():
        if line.startswith(name) and all(each in line for each in wanted):
            return float(line.split()[-1])
    return None


async def test_orders_do_not_wait_for_streams(world: World) -> None:
    """With every stream process gone an order is confirmed and told; the live event comes later."""
    shop = world.shop
    item, [buyer] = shop.item(5), shop.buyers(1)
    client = StreamClient(
        f"{world.url.replace('http', 'ws', 1)}/v1/stream", lambda: asyncio.sleep(0, buyer.token)
    )
    events = client.listen("orders")
    first = asyncio.create_task(anext(events))
    await until(lambda: client.last_event_id is not None)
    world.second.end()
    with shop.outage("stream"):
        began = time.monotonic()
        answer = await asyncio.to_thread(shop.order, buyer, item)
        assert (answer.status_code, answer.json()["status"]) == (201, "confirmed")
        order = answer.json()["id"]
        # The other subscriber of the same event is not held up.
        await until(lambda: shop.told([buyer])[order] == 1)
        took = time.monotonic() - began
        assert not first.done()
    world.second.start()
    async with asyncio.timeout(SECONDS):
        event = await first
    assert (event["event"], event["data"]["order_id"]) == ("order.confirmed", order)
    await events.aclose()
    print(f"\nconfirmed and told in {took:.2f} s without stream")
