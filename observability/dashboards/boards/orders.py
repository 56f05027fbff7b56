"""The business: orders and what they need, in the words of those who sell."""

from __future__ import annotations

from observability.dashboards.boards.queries import NAMESPACES, OF, highest, quantile, rate
from observability.dashboards.library import (
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Board,
    Query,
    graph,
    number,
    traces,
)

TRACES = (("Traces of orders", traces("orders")),)


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-orders",
        "Slipway / Orders",
        "Orders from the request to the notification, stock, and the people who order.",
        {"namespace": NAMESPACES},
        service="orders|inventory|items|notifications|stream|auth",
    )
    board.row("Now", *_now())
    board.row("Orders", *_orders())
    board.row("Live", *_live())
    board.row("Stock", *_stock())
    board.row("Buyers", *_buyers())
    return board


def _reached(status: str, by: str = "") -> str:
    return rate("orders_total", f'{OF},status="{status}"', by)


def _now() -> list[object]:
    ended = rate("orders_total", f'{OF},status=~"confirmed|rejected"', "")
    return [
        number("Confirmed", "Orders confirmed a second. Compare with the same hour of last week.",
               PER_SECOND, Query(_reached("confirmed")), links=TRACES),
        number("Share confirmed", "Of the orders that were settled. A fall is lost business: see "
               "why they are rejected, below.", SHARE,
               Query(f"{_reached('confirmed')} / ({ended} > 0)"), limits=(0.9, 0.5),
               links=TRACES),
        number("Unsettled", "Accepted, and not yet confirmed or rejected. They finish by "
               "themselves when the peer is back.", COUNT,
               Query(highest("orders_pending", OF, "")), limits=(20, 200)),
        number("Oldest unsettled", "Above 600 s it pages: docs/runbooks/OrdersStuck.md.", SECONDS,
               Query(highest("orders_pending_oldest_age_seconds", OF, "")), limits=(60, 600)),
        number("Items sold out", "Of which nothing can be reserved. Restock: "
               "docs/runbooks/inventory.md.", COUNT,
               Query(highest("inventory_items_out_of_stock", OF, "")), limits=(1, 10)),
        number("Buyers not told", "Events that were given up on: docs/runbooks/DeadLetters.md.",
               COUNT, Query(f'max(outbox_dead_letters{{{OF},job="orders"}})'), limits=(1, 10)),
    ]  # fmt: skip


def _orders() -> list[object]:
    of_orders = f'{OF},job="orders"'
    placed = rate("http_requests_total", f'{of_orders},method="POST"', "")
    return [
        graph("Orders by status", "How many reach a status. `rejected` without a rise of `pending` "
              "is a matter of stock, not of machines.", PER_SECOND,
              Query(rate("orders_total", OF, "status"), "{{status}}"), links=TRACES, wide=12),
        graph("Unsettled orders", "A hill while a peer is away is normal; a ramp that goes on "
              "after it is back is not: docs/runbooks/OrdersStuck.md.", COUNT,
              Query(highest("orders_pending", OF, ""), "unsettled"), limits=(20, 200), wide=12),
        graph("Saga steps put off", "A peer did not answer in this step. price: items; reserve "
              "and confirm: inventory.", PER_SECOND,
              Query(f"{rate('orders_saga_retries_total', OF, 'step')} or 0 * {placed}",
                    "{{step}}"), links=TRACES),
        graph("Rescued and given up", "Rescued: the worker finished what a request or a dead pod "
              "left. Given up: rejected after a day; tell the owner of the peer.", PER_SECOND,
              Query(rate("orders_saga_recovered_total", OF, ""), "rescued"),
              Query(rate("orders_saga_abandoned_total", OF, ""), "given up")),
        graph("Notifications", "Deliveries to those who want to know. `retry` for long: "
              "docs/runbooks/OutboxStuck.md.", PER_SECOND,
              Query(rate("outbox_deliveries_total", of_orders, "type, outcome"),
                    "{{type}} {{outcome}}")),
    ]  # fmt: skip


def _live() -> list[object]:
    return [
        graph("Open streams", "Clients that hear of their orders and notifications as they happen. "
              "They spread over the replicas as their tokens end.", COUNT,
              Query(f"sum by (transport) (stream_connections{{{OF}}})", "{{transport}}")),
        graph("Live events", "Sent to clients, and left out because one read too slowly: "
              "docs/runbooks/stream.md.", PER_SECOND,
              Query(rate("stream_messages_total", OF, "topic_kind, outcome"),
                    "{{topic_kind}} {{outcome}}")),
        graph("Lag of live events", "From the log to the queues of the clients, 99 of 100. It "
              "grows when a replica is too busy.", SECONDS,
              Query(quantile(0.99, "stream_lag_seconds", OF, ""), "p99"), limits=(1, 5)),
    ]  # fmt: skip


def _stock() -> list[object]:
    return [
        graph("Reservations by outcome", "`insufficient` is demand that we could not meet; "
              "`expired` are orders that never came back.", PER_SECOND,
              Query(rate("inventory_reservations_total", OF, "outcome"), "{{outcome}}")),
        graph("Reservations held", "Units set aside for unsettled orders. It should fall when "
              "orders are confirmed.", COUNT,
              Query(highest("inventory_reservations_held", OF, ""), "held")),
        graph("Items", "In the catalogue's stock, and sold out.", COUNT,
              Query(highest("inventory_items", OF, ""), "all"),
              Query(highest("inventory_items_out_of_stock", OF, ""), "sold out")),
    ]  # fmt: skip


def _buyers() -> list[object]:
    return [
        graph("Sign-ups", "New accounts, by outcome. Refused ones are mostly addresses that are "
              "taken.", PER_SECOND,
              Query(rate("auth_signups_total", OF, "outcome"), "{{outcome}}")),
        graph("Logins", "By outcome. Many failures from nowhere are guessing: "
              "docs/runbooks/auth.md.", PER_SECOND,
              Query(rate("auth_logins_total", OF, "method, outcome"), "{{method}} {{outcome}}")),
        graph("Locked out", "Attempts refused because of a lock. It ends by itself.", PER_SECOND,
              Query(rate("auth_lockouts_total", OF, ""), "refused"), limits=(0.1, 1)),
    ]  # fmt: skip
