"""Clients that place orders and do not give up: the same key again until there is an answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from tests.system.harness import Buyer, lines

_GIVE_UP_SECONDS = 120.0
_PAUSE_SECONDS = 0.25
_IN_PROGRESS = "urn:slipway:problem:idempotency-in-progress"


def client(connections: int) -> httpx2.AsyncClient:
    """A client with that many keep-alive connections."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(limits=limits, timeout=30, trust_env=False)


def _name(answer: httpx2.Response) -> str:
    """The status, and what a refusal says it is about."""
    if answer.is_success:
        return str(answer.status_code)
    body = answer.json()
    kind = str(body["type"]).rpartition(":")[2]
    return f"{answer.status_code} {kind if kind != 'blank' else body.get('detail')}"


@dataclass
class Placed:
    """One order that a buyer meant to place, and what became of it."""

    buyer: Buyer
    item: str
    key: str
    status: int
    order_id: str
    tries: int


@dataclass
class Load:
    """Places orders until told to stop; counts what the clients saw on the way."""

    url: str
    buyers: list[Buyer]
    items: list[str]
    placed: list[Placed] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    async def run(self, clients: int, enough: Callable[[], bool], limit: int) -> None:
        """Let `clients` buy in parallel until `enough` says so, at most `limit` orders."""
        begun = 0

        async def buy() -> None:
            nonlocal begun
            while not enough() and begun < limit:
                number, begun = begun, begun + 1
                buyer = self.buyers[number % len(self.buyers)]
                item = self.items[number % len(self.items)]
                self.placed.append(await self.place(http, buyer, item, str(uuid.uuid4())))

        async with client(clients) as http, asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(buy())

    async def more(self, answers: int) -> None:
        """Wait until that many more orders were answered: the service works and is busy."""
        target, end = len(self.placed) + answers, time.monotonic() + 90
        while len(self.placed) < target:
            assert time.monotonic() < end, f"{len(self.placed)} of {target}: {self.seen}"
            await asyncio.sleep(0.005)

    async def place(self, http: httpx2.AsyncClient, buyer: Buyer, item: str, key: str) -> Placed:
        """Place one order, with the same key until there is an answer that is one."""
        end = time.monotonic() + _GIVE_UP_SECONDS
        tries = 0
        while True:
            assert time.monotonic() < end, f"no answer to {key} after {tries} tries: {self.seen}"
            tries += 1
            try:
                answer = await http.post(
                    f"{self.url}/v1/orders",
                    json=lines(item),
                    headers={**buyer.headers, "Idempotency-Key": key},
                )
            except httpx2.TransportError as error:
                self.seen[type(error).__name__] += 1
            else:
                self.seen[_name(answer)] += 1
                if answer.status_code in {201, 202}:
                    found = answer.json()["id"]
                    return Placed(buyer, item, key, answer.status_code, found, tries)
                if answer.status_code == 409 and answer.json()["type"] != _IN_PROGRESS:
                    found = answer.json()["order_id"]
                    return Placed(buyer, item, key, answer.status_code, found, tries)
                assert answer.status_code in {409, 429, 503, 504}, answer.text
            await asyncio.sleep(_PAUSE_SECONDS)  # what a client does between tries
