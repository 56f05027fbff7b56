"""The first order, told step by step: `make demo` against the platform that `make up` started.

SLIPWAY_URL names another gateway. Exit code 1 with one line when a step fails.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
import uuid
from typing import Any

import httpx2

from scripts.local.home import Home, read_json
from scripts.local.lock import held

_DEFAULT_URL = "http://localhost:8080"
_REQUEST_SECONDS = 20.0
_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.2


class DemoError(Exception):
    """A step failed; one line says which and how."""


def main() -> int:
    """Run the demo."""
    url = gateway_url()
    try:
        with httpx2.Client(base_url=url, timeout=_REQUEST_SECONDS, trust_env=False) as client:
            run(client)
    except httpx2.ConnectError:
        print(f"demo: nothing answers at {url}; start it with `make up`", file=sys.stderr)
        return 1
    except (DemoError, httpx2.HTTPError) as error:
        print(f"demo: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def gateway_url() -> str:
    """SLIPWAY_URL, else where the running platform says that its gateway is."""
    home = Home.from_environment()
    status = read_json(home.status) if held(home) else None
    processes = status["processes"] if isinstance(status, dict) else []
    running = next((p["url"] for p in processes if p["name"] == "gateway"), _DEFAULT_URL)
    return os.environ.get("SLIPWAY_URL") or str(running)


def run(client: httpx2.Client) -> None:
    """Every step, each printed.

    Raises:
        DemoError: an answer is not the expected one.
    """
    email = f"demo-{uuid.uuid4().hex[:12]}@example.org"
    password = secrets.token_urlsafe(18)
    user = call(client, "sign up", "POST", "/v1/users", json={"email": email, "password": password})
    say("Signed up", f"{email} (user {user['id']})")

    form = {"grant_type": "password", "username": email, "password": password}
    token = call(client, "log in", "POST", "/v1/token", data=form)
    say("Logged in", f"a token for {token['expires_in']} s, scopes: {token['scope']}")
    client.headers["Authorization"] = f"Bearer {token['access_token']}"

    items = call(client, "list items", "GET", "/v1/items", params={"limit": 100})["items"]
    say("Catalogue", f"{len(items)} items")
    for item in items:
        price = item["price"]
        print(f"    {item['id']:<20} {price['amount']:>10} {price['currency']}  {item['name']}")

    lines = choose_lines(client, items)
    order = call(
        client,
        "order",
        "POST",
        "/v1/orders",
        json={"lines": lines},
        headers={"Idempotency-Key": str(uuid.uuid4())},
    )
    if order["status"] == "pending":
        say("Ordered", f"{order['id']} is pending: a service is away, the saga goes on by itself")
        order = wait_for_order(client, order["id"])
    if order["status"] != "confirmed":
        raise DemoError(f"order: {order['id']} is {order['status']}: {order.get('reason')}")
    say("Ordered", f"{order['id']} is {order['status']}")
    for line in order["lines"]:
        price = line["unit_price"]
        print(f"    {line['quantity']} x {line['name']} at {price['amount']} {price['currency']}")
    print(f"    total {order['total']['amount']} {order['total']['currency']}")

    told = wait_for_notification(client, order["id"])
    say("Notified", f"{told['title']}: {told['body']}")


def choose_lines(client: httpx2.Client, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two of the first items of one currency that are in stock.

    Raises:
        DemoError: nothing is in stock.
    """
    lines: list[dict[str, Any]] = []
    for item in items:
        line = {"item_id": item["id"], "quantity": 1}
        answer = call(client, "check stock", "POST", "/v1/check", json={"items": [line]})
        if answer["available"] and item["price"]["currency"] == items[0]["price"]["currency"]:
            lines.append(line)
        if len(lines) == 2:  # noqa: PLR2004 - an order of two lines shows enough
            break
    if not lines:
        raise DemoError("check stock: nothing is in stock; `make clean` and `make up` refill it")
    return lines


def wait_for_order(client: httpx2.Client, order_id: str) -> dict[str, Any]:
    """The order once the saga is through with it.

    Raises:
        DemoError: it is still pending when the time is over.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < end:
        order = call(client, "read the order", "GET", f"/v1/orders/{order_id}")
        if order["status"] != "pending":
            return order
        time.sleep(_POLL_SECONDS)
    raise DemoError(f"order: {order_id} is still pending after {_WAIT_SECONDS:g} s")


def wait_for_notification(client: httpx2.Client, order_id: str) -> dict[str, Any]:
    """The notification about the order; it comes by the outbox, a moment later.

    Raises:
        DemoError: there is none when the time is over.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < end:
        page = call(client, "read notifications", "GET", "/v1/notifications")
        for told in page["items"]:
            if told["data"].get("order_id") == order_id:
                return dict(told)
        time.sleep(_POLL_SECONDS)
    raise DemoError(f"notifications: none about {order_id} after {_WAIT_SECONDS:g} s")


def call(client: httpx2.Client, step: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    """One request; its JSON.

    Raises:
        DemoError: the answer is no success; the problem's words are in the line.
    """
    answer = client.request(method, path, **more)
    if not answer.is_success:
        try:
            problem = answer.json()
            words = f"{problem.get('title')}: {problem.get('detail')}"
        except ValueError:
            words = answer.text[:200]
        raise DemoError(f"{step}: {method} {path} answered {answer.status_code}: {words}")
    return dict(answer.json())


def say(what: str, text: str) -> None:
    """Print one step."""
    print(f"{what:<10} {text}")


if __name__ == "__main__":
    sys.exit(main())
