"""Running stream services, in memory and on a real Valkey, and clients that talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chassis.ids import new_id
from chassis.testing import TestIssuer, running_app
from stream.main import create_app
from stream.service import Streams, streams_of
from stream.settings import Settings

SECONDS = 45.0
"""How long a test waits for what must come."""


@dataclass
class Client:
    """A WebSocket client of a test."""

    socket: ClientConnection
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        try:
            async with asyncio.timeout(SECONDS):
                message: dict[str, Any] = json.loads(await self.socket.recv())
        except TimeoutError:
            kinds = Counter(each["type"] for each in self.seen)
            pytest.fail(f"nothing more came after {self.seen[-3:]}; in all {dict(kinds)}")
        self.seen.append(message)
        return message

    async def until(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type; those before it are in `seen`."""
        while True:
            message = await self.next()
            if message["type"] == kind:
                return message

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Return the next events."""
        return [await self.until("event") for _ in range(count)]

    async def values(self, count: int) -> list[float]:
        """Return the values of the next readings."""
        return [event["data"]["value"] for event in await self.events(count)]

    async def subscribe(self, *topics: str, **more: Any) -> dict[str, Any]:
        """Subscribe; return the answer."""
        await self.say(type="subscribe", topics=topics, **more)
        return await self.until("subscribed")

    async def closed(self) -> tuple[int, str]:
        """Wait for the end of the stream: the close code and the reason."""
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    self.seen.append(json.loads(await self.socket.recv()))
        return self.socket.close_code or 0, self.socket.close_reason or ""


@dataclass
class Replica:
    """One running process of the service, in this one."""

    url: str
    app: FastAPI
    issuer: TestIssuer
    http: httpx2.AsyncClient
    """A client of its HTTP API."""

    def __post_init__(self) -> None:
        self._meter = self.issuer.authorization("meter", "sensors:write")
        self._relay = self.issuer.authorization("orders", "events:deliver")

    @property
    def streams(self) -> Streams:
        """Its inside."""
        return streams_of(self.app.state.runtime)

    def token(self, user: str = "u1", scopes: str = "stream:read", **more: Any) -> str:
        """Return an access token."""
        return self.issuer.token(user, scopes, **more)

    @asynccontextmanager
    async def open(
        self,
        user: str = "u1",
        *,
        token: str | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Client]:
        """Open a WebSocket; by default with a token in the header."""
        if headers is None:
            headers = {"Authorization": f"Bearer {token or self.token(user)}"}
        url = self.url.replace("http", "ws", 1) + "/v1/stream" + query
        async with connect(
            url, additional_headers=headers, proxy=None, compression=None, **options
        ) as socket:
            yield Client(socket)

    async def deliver(self, event: dict[str, Any]) -> httpx2.Response:
        """Deliver a CloudEvent as a relay does."""
        headers = {**self._relay, "Content-Type": "application/cloudevents+json"}
        return await self.http.post("/events", json=event, headers=headers)

    async def measure(self, sensor: str, *values: float) -> None:
        """Add readings of a sensor, in one batch."""
        answer = await self.http.post(
            f"/v1/sensors/{sensor}/readings",
            json={"readings": [reading(value) for value in values]},
            headers=self._meter,
        )
        assert answer.status_code == 202, answer.text


def reading(value: float) -> dict[str, Any]:
    """Return the body of one reading."""
    return {"value": value, "unit": "Cel", "at": "2026-05-04T12:00:00Z"}


@pytest.fixture
def order_event() -> Callable[..., dict[str, Any]]:
    """A function: makes a CloudEvent as orders sends it."""

    def make(owner: str = "u1", **changes: Any) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": new_id(),
            "source": "/services/orders",
            "type": "order.confirmed",
            "subject": "o1",
            "time": "2026-05-04T12:00:00Z",
            "datacontenttype": "application/json",
            "data": {"order_id": "o1", "owner": owner, "status": "confirmed"},
            **changes,
        }

    return make


Start = Callable[..., Any]


@pytest.fixture
def start(make_settings: Callable[..., Settings], token_issuer: TestIssuer) -> Start:
    """A function that runs the service on a real port, with the settings it is given."""

    @asynccontextmanager
    async def run(clock: Any = None, exporter: Any = None, **overrides: Any) -> AsyncIterator[Any]:
        # A busy machine stalls for seconds, which is no fault of Valkey.
        patient = {"access_log": False, "valkey_timeout_seconds": 30.0}
        settings = make_settings(Settings, **{**patient, **overrides})
        app = create_app(settings, clock=clock, span_exporter=exporter)
        async with (
            running_app(app, ws_per_message_deflate=False) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False, timeout=SECONDS) as client,
        ):
            yield Replica(url, app, token_issuer, client)

    return run


@pytest.fixture(params=["memory", "valkey"])
def log_url(request: pytest.FixtureRequest) -> str:
    """Runs the test on a log in memory, then on a real Valkey."""
    return "" if request.param == "memory" else request.getfixturevalue("valkey_process").url


@pytest.fixture
async def replica(start: Start, log_url: str) -> AsyncIterator[Replica]:
    """A running service, on each log."""
    async with start(valkey_url=log_url) as running:
        yield running


@pytest.fixture
def until() -> Callable[..., Any]:
    """A function that waits for a condition, for what happens elsewhere in this process."""

    async def wait(condition: Callable[[], Any], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  (anything may be asked)
                await asyncio.sleep(0.01)

    return wait
