"""The world around orders: the real items, inventory and notifications, on real ports.

Inventory and items are reached through a `FaultyPeer` that forwards, so that a test can take
them away, slow them down or lose their answers while the services themselves stay what they are.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import select

import inventory.audit
import inventory.main
import inventory.settings
import items.main
import items.settings
import notifications.main
import notifications.settings
import orders.main
import orders.settings
from chassis.database import Database
from chassis.events.tables import outbox
from chassis.testing import FaultyPeer, RecordedRequest, TestIssuer, app_client, running_app
from chassis.testing.peer import Behaviour, Connection
from chassis.testing.processes import end_with_parent

Hook = Callable[[RecordedRequest], Awaitable[None]]

CATALOGUE = {
    "desk": ("12.50", "EUR", "available"),
    "lamp": ("3.25", "EUR", "available"),
    "walnut-desk": ("549.00", "EUR", "available"),
    "rug": ("99.00", "USD", "available"),
    "sofa": ("450.00", "EUR", "coming_soon"),
    "gold": ("90000000000.00", "EUR", "available"),
}
STOCK = 20

# Quick to try again, and patient with a busy machine: only a test that says so meets a timeout.
FAST = {
    "request_timeout_seconds": 60.0,
    "peer_timeout_seconds": 30.0,
    "peer_connect_timeout_seconds": 10.0,
    "saga_inline_seconds": 40.0,
    "saga_lease_seconds": 100.0,
    "saga_poll_seconds": 0.05,
    "saga_backoff_seconds": 0.05,
    "saga_backoff_cap_seconds": 0.4,
    "outbox_poll_seconds": 0.05,
    "outbox_backoff_seconds": 0.05,
    "outbox_backoff_cap_seconds": 0.4,
}


class Gate(FaultyPeer):
    """Forwards to a real service until told otherwise."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target
        self._client = httpx2.AsyncClient(trust_env=False, timeout=30)
        self.open()

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._client.aclose()

    def open(self, *, before: Hook | None = None, after: Hook | None = None) -> None:
        """Forward everything; `before` and `after` run around the service's work."""
        self.use(self._behaviour(before=before, after=after))

    def lose_answers(self, *, times: int) -> None:
        """Let the service do its work, and reset the connection instead of answering."""
        self.use(self._behaviour(lose=True), times=times)

    def clear(self) -> None:
        """Forget the faults that are still to come."""
        self._queue.clear()
        self.open()

    def calls(self, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    def _behaviour(
        self, *, before: Hook | None = None, after: Hook | None = None, lose: bool = False
    ) -> Behaviour:
        async def behave(connection: Connection, request: RecordedRequest) -> bool:
            if before is not None:
                await before(request)
            dropped = {"host", "content-length", "connection", "transfer-encoding"}
            try:
                answer = await self._client.request(
                    request.method,
                    self._target + request.target,
                    content=request.body,
                    headers={k: v for k, v in request.headers.items() if k not in dropped},
                )
            except httpx2.TransportError:  # the service ends with the test
                connection.reset()
                return False
            if after is not None:
                await after(request)
            if lose:
                connection.reset()
                return False
            head = f"HTTP/1.1 {answer.status_code} Status\r\n"
            head += f"Content-Type: {answer.headers.get('content-type', '')}\r\n"
            head += f"Content-Length: {len(answer.content)}\r\n\r\n"
            connection.writer.write(head.encode("latin-1") + answer.content)
            await connection.writer.drain()
            return True

        return behave


class OrdersProcess:
    """An orders service as a process of its own, which can be killed and started again."""

    def __init__(self, settings: orders.settings.Settings) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        given = settings.model_dump(mode="json", include=settings.model_fields_set)
        given |= {"port": self.port, "client_secret": "only-for-tests"}
        self._environment = {
            **os.environ,
            **{
                f"ORDERS_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
                for name, value in given.items()
            },
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._killing = anyio.Lock()

    async def start(self) -> None:
        """Start, and return when it is ready."""
        self._process = subprocess.Popen(  # noqa: ASYNC220  (it returns at once)
            [sys.executable, "-m", "chassis", "serve", "orders"],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
        )
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            with anyio.fail_after(60):
                while True:
                    assert self._process.poll() is None, "the orders process ended"
                    with contextlib.suppress(httpx2.TransportError):
                        if (await client.get(f"{self.url}/readyz")).status_code == 200:
                            return
                    await anyio.sleep(0.05)

    async def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does."""
        async with self._killing:
            if self._process is not None:
                self._process.kill()
                await anyio.to_thread.run_sync(self._process.wait)
                self._process = None


@dataclass
class World:
    """The services around orders, and what tests ask of them."""

    issuer: TestIssuer
    make_settings: Callable[..., Any]
    database_url: str
    items: Gate
    inventory: Gate
    notifications: Gate
    http: httpx2.AsyncClient
    urls: dict[str, str]
    stack: AsyncExitStack
    inventory_app: FastAPI

    def settings(self, **overrides: Any) -> orders.settings.Settings:
        """Return settings of an orders process in this world."""
        events = [f"{self.notifications.url}/events"]
        values = {
            **FAST,
            "database_url": self.database_url,
            "items_url": self.items.url,
            "inventory_url": self.inventory.url,
            "subscribers": {
                f"order.{status}": events for status in ("confirmed", "rejected", "cancelled")
            },
            "access_log": False,
            **overrides,
        }
        settings: orders.settings.Settings = self.make_settings(orders.settings.Settings, **values)
        return settings

    def app(self, **overrides: Any) -> FastAPI:
        """Return an orders application in this world."""
        return orders.main.create_app(self.settings(**overrides))

    @asynccontextmanager
    async def orders(self, **overrides: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Run an orders application in process and yield a client that calls it as user u1."""
        headers = self.user("u1")
        async with app_client(self.app(**overrides), headers=headers) as client:
            yield client

    def process(self, **overrides: Any) -> OrdersProcess:
        """Return an orders process in this world, not started yet; it ends with the test."""
        process = OrdersProcess(self.settings(**overrides))
        self.stack.push_async_callback(process.kill)
        return process

    async def audit(self) -> list[Any]:
        """Return what does not add up in inventory: stock, ledger and reservations."""
        found = await inventory.audit.audit(self.inventory_app.state.runtime.database)
        return list(found.mismatches)

    def user(self, name: str) -> dict[str, str]:
        """Return the headers of a signed-in user."""
        return self.issuer.authorization(name, "orders:read orders:write notifications:read")

    async def available(self, item: str) -> int:
        """Return how many units inventory could still sell."""
        answer = await self.http.get(
            f"{self.urls['inventory']}/v1/stock/{item}", headers=self.user("u1")
        )
        return int(answer.json()["available"])

    async def stock(self, item: str, on_hand: int) -> None:
        """Set the units of an item."""
        answer = await self.http.put(
            f"{self.urls['inventory']}/v1/stock/{item}",
            headers=self.issuer.authorization("admin", "inventory:write"),
            json={"on_hand": on_hand},
        )
        assert answer.status_code in (200, 201), answer.text

    async def reservation(self, reservation_id: str) -> str:
        """Return the state of a reservation at inventory, `unknown` if there is none."""
        answer = await self.http.get(
            f"{self.urls['inventory']}/v1/reservations/{reservation_id}",
            headers=self.issuer.authorization("orders", "inventory:reserve"),
        )
        return "unknown" if answer.status_code == 404 else str(answer.json()["state"])

    async def told(self, user: str) -> list[tuple[str, str]]:
        """Return (kind, order) of every notification of a user, oldest first."""
        found: list[tuple[str, str]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.http.get(
                f"{self.urls['notifications']}/v1/notifications",
                headers=self.user(user),
                params={"limit": "100", **cursor},
            )
            body = answer.json()
            found += [(item["kind"], item["data"]["order_id"]) for item in body["items"]]
            if body["next_cursor"] is None:
                return found[::-1]
            cursor = {"cursor": body["next_cursor"]}

    async def published(self) -> list[str]:
        """Return the type of every event that orders wrote, oldest first."""
        database = Database(self.settings())
        try:
            async with database.reading() as session:
                return list(await session.scalars(select(outbox.c.type).order_by(outbox.c.seq)))
        finally:
            await database.close()

    async def eventually(self, check: Callable[[], Awaitable[Any]], *, within: float = 10.0) -> Any:
        """Return the first true answer of `check`, asked again and again for `within` seconds."""
        last: Any = None
        with anyio.move_on_after(within):
            while True:
                last = await check()
                if last:
                    return last
                await anyio.sleep(0.02)
        pytest.fail(f"not within {within} s; the last answer was {last!r}")

    async def settled(
        self, client: httpx2.AsyncClient, order_id: str, *, within: float = 10.0
    ) -> Any:
        """Return the order once it is neither pending nor cancelling."""

        async def look() -> Any:
            order = (await client.get(f"/v1/orders/{order_id}")).json()
            return order if order["status"] not in {"pending", "cancelling"} else None

        return await self.eventually(look, within=within)

    @staticmethod
    def lines(**quantities: int) -> dict[str, Any]:
        """Return the body of an order: `lines(desk=2)`."""
        return {"lines": [{"item_id": item, "quantity": n} for item, n in quantities.items()]}

    async def counted(self, client: httpx2.AsyncClient, status: str) -> float:
        """Return `orders_total` of a status, as this process tells it at /metrics."""
        wanted = f'orders_total{{status="{status}"}} '
        text = (await client.get("/metrics")).text
        return next((float(x[len(wanted) :]) for x in text.splitlines() if x.startswith(wanted)), 0)


@pytest.fixture
async def world(
    migrated_database_url: Callable[[str], str],
    make_settings: Callable[..., Any],
    token_issuer: TestIssuer,
) -> AsyncIterator[World]:
    """The real services around orders, with a small catalogue and 20 units of everything."""
    services = {"items": items, "inventory": inventory, "notifications": notifications}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=30))
        urls: dict[str, str] = {}
        gates: dict[str, Gate] = {}
        apps: dict[str, FastAPI] = {}
        for name, package in services.items():
            settings = make_settings(
                package.settings.Settings,
                database_url=migrated_database_url(name),
                access_log=False,
            )
            apps[name] = package.main.create_app(settings)
            urls[name] = await stack.enter_async_context(running_app(apps[name]))
            gates[name] = await stack.enter_async_context(Gate(urls[name]))
        world = World(
            token_issuer,
            make_settings,
            migrated_database_url("orders"),
            http=http,
            urls=urls,
            stack=stack,
            inventory_app=apps["inventory"],
            **gates,
        )
        admin = token_issuer.authorization("admin", "items:write")
        for item, (amount, currency, status) in CATALOGUE.items():
            body = {
                "id": item,
                "sku": item.upper(),
                "name": item.title(),
                "description": "",
                "category": "test",
                "status": status,
                "price": {"amount": amount, "currency": currency},
            }
            answer = await http.post(f"{urls['items']}/v1/items", headers=admin, json=body)
            assert answer.status_code == 201, answer.text
            if status == "available":
                await world.stock(item, STOCK)
        yield world
