"""SIGTERM under load: what a rolling restart does to clients of the gateway.

Two processes of items and of orders stand behind one Envoy, as two replicas would; one after the
other is told to end and started again while clients with keep-alive connections go on. Reads: not
one may fail. Writes: a request that a service accepted is answered; one that came to a closing
connection was not accepted, may be 503 at the gateway, and left nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from scripts import gateway, topology
from scripts.local.ports import pick_free
from scripts.local.slipway import find_envoy
from tests.local.platform_handle import eventually
from tests.system.harness import Buyer, Second, Shop, lines
from tests.system.load import client

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

REPLICATED = ("items", "orders")


@contextlib.contextmanager
def second_gateway(shop: Shop, directory: Path, more: dict[str, int]) -> Iterator[tuple[str, str]]:
    """An Envoy with the chart's configuration and one more endpoint for some clusters.

    Its URL and that of its admin interface.
    """
    http, admin = pick_free(2)
    ports = {name: shop.platform.process(name)["port"] for name in topology.load().services}
    text = gateway.render(
        topology.load(),
        addresses={name: f"127.0.0.1:{port}" for name, port in ports.items()},
        ports={"http": http, "admin": admin},
        values={"jwt": {"issuer": shop.platform.process("gateway")["url"]}},
    )
    config = yaml.safe_load(text)
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"] in more:
            endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            other = copy.deepcopy(endpoints[0])
            address = other["endpoint"]["address"]["socket_address"]
            address["port_value"] = more[cluster["name"]]
            endpoints.append(other)
    path = directory / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            gateway.command(find_envoy(), path, concurrency=1), stdout=log, stderr=log
        )
    try:
        admin_url = f"http://127.0.0.1:{admin}"

        def ready() -> bool:
            assert process.poll() is None, (directory / "envoy.log").read_text()[-2000:]
            with contextlib.suppress(httpx2.TransportError):
                stats = shop.get(f"{admin_url}/stats?filter=jwks_fetch_success$").text
                up = shop.get(f"{admin_url}/ready").status_code == 200
                return up and not stats.strip().endswith(": 0") and bool(stats.strip())
            return False

        eventually(ready, 60)
        yield f"http://127.0.0.1:{http}", admin_url
    finally:
        process.terminate()
        process.wait(20)


class Clients:
    """Readers and buyers that never repeat a request; they count what they were answered."""

    def __init__(self, url: str, item: str, buyers: list[Buyer]) -> None:
        self.url, self.item, self.buyers = url, item, buyers
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.refused: list[str] = []
        self.orders: set[str] = set()
        self.stop = False

    async def read(self, http: httpx2.AsyncClient, buyer: Buyer) -> None:
        """Read one item over and over, below the rate limit of one client."""
        while not self.stop:
            try:
                answer = await http.get(f"{self.url}/v1/items/{self.item}", headers=buyer.headers)
                self.reads[str(answer.status_code)] += 1
            except httpx2.TransportError as error:
                self.reads[repr(error)] += 1
            await asyncio.sleep(0.03)

    async def write(self, http: httpx2.AsyncClient, buyer: Buyer) -> None:
        """Place one order after the other."""
        while not self.stop:
            headers = {**buyer.headers, "Idempotency-Key": str(uuid.uuid4())}
            try:
                answer = await http.post(
                    f"{self.url}/v1/orders", json=lines(self.item), headers=headers
                )
            except httpx2.TransportError as error:
                self.writes[repr(error)] += 1
                continue
            self.writes[str(answer.status_code)] += 1
            if answer.is_success:
                self.orders.add(answer.json()["id"])
            else:
                self.refused.append(answer.text)
            await asyncio.sleep(0.03)

    async def run(self, work: Callable[[], None]) -> None:
        """Work in a thread while the clients go on."""
        async with client(12) as http, asyncio.TaskGroup() as tasks:
            for buyer in self.buyers:
                tasks.create_task(self.read(http, buyer))
                tasks.create_task(self.write(http, buyer))
            try:
                await asyncio.to_thread(work)
            finally:
                self.stop = True

    def more(self, count: int) -> None:
        """Wait until that many more reads and writes were answered."""
        reads, writes = self.reads.total() + count, self.writes.total() + count
        eventually(lambda: self.reads.total() >= reads and self.writes.total() >= writes, 60)


async def test_sigterm_under_load_loses_no_response(shop: Shop, tmp_path: Path) -> None:
    """Four processes restart one by one: every read is 200, no accepted order is cut."""
    item, buyers = shop.item(100_000), shop.buyers(4)
    ports = dict(zip(REPLICATED, pick_free(2), strict=True))
    ended: list[int] = []
    with (
        shop.second("items", ports["items"]) as items,
        shop.second("orders", ports["orders"]) as orders,
        second_gateway(shop, tmp_path, ports) as (url, admin),
    ):
        clients = Clients(url, item, buyers)

        def restart_all() -> None:
            clients.more(20)
            for name, other in (("items", items), ("orders", orders)):
                shop.restart(name, signal.SIGTERM)
                _none_left_out(shop, admin, name)
                clients.more(20)
                _restart_second(other, ended)
                _none_left_out(shop, admin, name)
                clients.more(20)

        began = time.monotonic()
        await clients.run(restart_all)
        took = time.monotonic() - began
        assert set(clients.reads) == {"200"}, clients.reads
        assert set(clients.writes) <= {"201", "202", "503"}, clients.writes
        # What was stored was answered, and what was answered was stored.
        states = shop.assert_adds_up(buyers, {item: 100_000})
        assert set(shop.orders_of(buyers)) == clients.orders, (clients.writes, clients.refused)
        assert set(states) == {"confirmed"}
    assert ended == [0, 0]
    print(
        f"\n4 restarts in {took:.0f} s: reads {dict(clients.reads)}, writes {dict(clients.writes)}"
    )


def _restart_second(other: Second, ended: list[int]) -> None:
    ended.append(other.end())
    other.start()


def _none_left_out(shop: Shop, admin: str, name: str) -> None:
    """A rollout goes on when the new process serves: wait until Envoy sends it requests again."""
    gauge = f"cluster.{name}.outlier_detection.ejections_active"
    eventually(
        lambda: shop.get(f"{admin}/stats?filter=^{gauge}$").text.strip() == f"{gauge}: 0", 60
    )
