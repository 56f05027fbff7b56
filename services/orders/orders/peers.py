"""The calls of the saga: each asks a peer one thing and says what came back as an event.

Everything that is not a clear answer raises; the driver then tries again later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from httpx2 import Response

from chassis.http.peer import Peer
from chassis.money import Money
from orders.domain import Line, Order, Reason
from orders.saga import Completed, Event, HoldLost, Priced, Refused, Released, Step

_OK, _CREATED, _CONFLICT = 200, 201, 409

INSUFFICIENT = "insufficient-stock"
_ENDED = frozenset({"reservation-expired", "reservation-released"})


class UnexpectedAnswerError(Exception):
    """A peer answered something that its contract does not name (a deployment mistake, say)."""

    def __init__(self, peer: str, response: Response) -> None:
        super().__init__(f"{peer} answered {response.status_code}")


class Peers:
    """Items and inventory, as the saga sees them."""

    def __init__(self, items: Peer, inventory: Peer) -> None:
        self._items = items
        self._inventory = inventory

    def probe(self) -> None:
        """Let one call through an open circuit breaker now; the caller has a backoff of its own."""
        for peer in (self._items, self._inventory):
            peer.breaker.half_open()

    async def perform(self, step: Step, order: Order) -> Event:
        """Make the call of a step.

        Raises:
            PeerError: the peer is away, failing or too slow.
            UnexpectedAnswerError: the peer broke its contract.
        """
        match step:
            case Step.PRICE:
                return await self.price(order.lines)
            case Step.RESERVE:
                return await self._reserve(order)
            case Step.RELEASE:
                return await self._release(order)

    async def price(self, lines: tuple[Line, ...]) -> Priced | Refused:
        """Ask the catalogue for names and prices, all lines in one call."""
        ids = ",".join(line.item_id for line in lines)
        response = await self._items.get("/v1/items", params={"ids": ids}, auth=False)
        if response.status_code != _OK:
            raise UnexpectedAnswerError("items", response)
        return priced(lines, {item["id"]: item for item in response.json()["items"]})

    async def _reserve(self, order: Order) -> Event:
        # Nothing comes between setting aside and confirming: inventory is asked for both at once.
        lines = [{"item_id": line.item_id, "quantity": line.quantity} for line in order.lines]
        response = await self._inventory.post(
            "/v1/reservations",
            json={"id": order.reservation_id, "lines": lines, "confirm": True},
            idempotent=True,
        )
        if response.status_code in (_OK, _CREATED) and response.json()["state"] == "confirmed":
            return Completed()
        kind = _kind(response) if response.status_code == _CONFLICT else ""
        if kind == INSUFFICIENT:
            detail = "There is not enough stock."
            return Refused(Reason(INSUFFICIENT, detail, {"lines": response.json()["lines"]}))
        if kind in _ENDED:
            return HoldLost()
        raise UnexpectedAnswerError("inventory", response)

    async def _release(self, order: Order) -> Event:
        path = f"/v1/reservations/{quote(order.reservation_id)}/release"
        response = await self._inventory.post(path, idempotent=True)
        if response.status_code != _OK:
            raise UnexpectedAnswerError("inventory", response)
        return Released()


def _kind(response: Response) -> str:
    return str(response.json().get("type", "")).rpartition(":")[2]


def priced(lines: tuple[Line, ...], items: Mapping[str, Any]) -> Priced | Refused:
    """Put the catalogue's prices on the lines, or say why they cannot be sold."""
    unknown = [line for line in lines if line.item_id not in items]
    if unknown:
        return _refused("unknown-items", "The catalogue does not have all of the items.", unknown)
    unsold = [line for line in lines if items[line.item_id]["status"] != "available"]
    if unsold:
        return _refused("items-not-for-sale", "Not all of the items are for sale.", unsold)
    prices = {line.item_id: Money.model_validate(items[line.item_id]["price"]) for line in lines}
    currencies = sorted({price.currency for price in prices.values()})
    if len(currencies) > 1:
        detail = f"An order has one currency, not {' and '.join(currencies)}."
        return _refused("mixed-currencies", detail, lines)
    try:
        amounts = [prices[line.item_id] * line.quantity for line in lines]
        total = Money.total(amounts, currencies[0])
    except ValueError:
        return _refused("total-too-large", "The total is too large to be booked.", lines)
    return Priced(
        tuple(
            replace(line, name=items[line.item_id]["name"], unit_price=prices[line.item_id])
            for line in lines
        ),
        total,
    )


def _refused(code: str, detail: str, lines: Iterable[Line]) -> Refused:
    named = [{"item_id": line.item_id, "quantity": line.quantity} for line in lines]
    return Refused(Reason(code, detail, {"lines": named}))
