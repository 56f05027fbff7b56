"""No personal data and no secret in a log line, a span or a metric, whatever happens."""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from typing import Any

import pytest

from tests.local.platform_handle import eventually
from tests.system.harness import Buyer, Shop, log_lines, whole_lines

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


_ENOUGH = 200  # of a token: beyond what all tokens have in common


class Secrets:
    """What must be found nowhere, by what it is."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def new(self, what: str, value: str) -> str:
        """Remember a value that we send or were given."""
        assert len(value) >= 8, "short values are found by chance"
        self.known[f"{what} {len(self.known)}"] = value
        return value

    def found_in(self, text: str) -> set[str]:
        """What of it stands in a text, whole or its beginning, as where texts are cut."""
        return {what for what, value in self.known.items() if value[:_ENOUGH] in text}


def a_day_at_the_shop(shop: Shop, hidden: Secrets) -> None:
    """All that a person does, right and wrong: accounts, tokens, keys, orders, mistakes."""
    email = hidden.new("email", f"ada.{uuid.uuid4().hex}@example.org")
    password = hidden.new("password", secrets.token_urlsafe(18))
    wrong = hidden.new("password", secrets.token_urlsafe(18))
    account = {"email": email, "password": password}
    created = shop.call("POST", "/v1/users", json=account)
    assert created.status_code == 201, created.text
    shop.call("POST", "/v1/users", json=account)  # taken
    shop.call("POST", "/v1/users", json={"email": f"not {email}", "password": 7})  # malformed
    shop.call("POST", "/v1/users", content=json.dumps(account)[:-1])  # broken JSON
    shop.call("POST", "/v1/users", json={"email": f"x{email}", "password": "password"})  # weak

    def token(**form: str) -> Any:
        return shop.call("POST", "/v1/token", data=form)

    login = {"grant_type": "password", "username": email}
    for _ in range(3):
        assert token(**login, password=wrong).status_code in {400, 401, 429}
    assert token(grant_type="refresh_token", refresh_token=wrong).status_code in {400, 401}
    given = token(**login, password=password)
    assert given.status_code == 200, given.text
    access = hidden.new("access token", given.json()["access_token"])
    hidden.new("signature", access.rpartition(".")[2])
    if refresh := given.json().get("refresh_token"):
        hidden.new("refresh token", refresh)
        again = token(grant_type="refresh_token", refresh_token=refresh)
        assert again.status_code == 200, again.text
        access = hidden.new("access token", again.json()["access_token"])
    basic = base64.b64encode(f"{email}:{password}".encode()).decode()
    hidden.new("basic", basic)
    for header in (f"Bearer {access}", f"Basic {basic}", f"Bearer {access}x", basic):
        shop.call("POST", "/login/", headers={"Authorization": header})
        shop.call("GET", "/v1/users/me", headers={"Authorization": header})

    buyer = Buyer(created.json()["id"], access)
    key = shop.call("POST", "/v1/keys", who=buyer, json={"name": "ci", "scopes": ["profile"]})
    made = key.json() if key.status_code == 201 else {}
    assert made, key.text
    value = hidden.new("API key", next(v for v in made.values() if str(v).startswith("slk_")))
    for sent in (value, f"{value}x"):
        shop.call("GET", "/v1/users/me", headers={"X-API-Key": sent})
        shop.call("GET", "/v1/items", at="items", headers={"X-API-Key": sent})

    item = shop.item(3)
    assert shop.order(buyer, item).status_code == 201
    shop.order(buyer, item, 99)  # more than there is
    shop.order(buyer, f"none-{uuid.uuid4().hex}")
    # Credentials where they do not belong: in a query, in a cookie, at a service directly.
    for at in ("gateway", "orders", "auth"):
        shop.call(
            "GET",
            f"/v1/orders?email={email}&password={password}&access_token={access}",
            at=at,
            headers={"Cookie": f"session={access}", "Authorization": f"Bearer {wrong}"},
        )
    with shop.outage("inventory"):
        shop.order(buyer, item)
        shop.call("GET", f"/v1/stock/{item}?key={value}", who=buyer)


def test_nothing_personal_or_secret_is_told(shop: Shop) -> None:
    """Logs of every process, spans in the trace view, metrics: after a day of everything."""
    hidden = Secrets()
    stored = json.loads((shop.platform.home / "secrets" / "local.json").read_text())
    for name, value in stored.items():
        hidden.new(name, value)
    a_day_at_the_shop(shop, hidden)
    last = shop.call("GET", "/v1/items").headers["x-request-id"]
    folder = shop.platform.home / "logs"
    # Envoy writes its log in blocks: everything before this request is in it by then.
    eventually(lambda: log_lines(folder / "gateway.log", lambda x: x.get("request_id") == last), 60)
    time.sleep(1)  # and the services what was still on its way

    logs = {file.name: file.read_text(errors="replace") for file in folder.iterdir()}
    assert {"auth.log", "orders.log", "gateway.log", "notifications.log"} <= logs.keys()
    assert sum(text.count("\n") for text in logs.values()) > 50
    assert {n: hidden.found_in(text) for n, text in logs.items() if hidden.found_in(text)} == {}
    everything = "".join(logs.values()).lower()
    assert "authorization: " not in everything
    assert "@example.org" not in everything

    traces = shop.call("GET", "/api/traces", at="traces").json()
    assert len(traces) > 20
    for trace in traces:
        spans = shop.call("GET", f"/api/traces/{trace['id']}", at="traces").text
        assert hidden.found_in(spans) == set()
        assert "@example.org" not in spans
    for name in shop.names:
        address = shop.platform.process(name)["metrics"]
        if address:
            assert hidden.found_in(shop.get(address).text) == set(), name


def test_every_line_of_a_service_is_json_with_its_service(shop: Shop) -> None:
    """Collectors need no parser of their own: one object a line, also for what libraries say."""
    shop.call("GET", "/v1/items")
    for name in shop.names:
        if name in {"gateway", "traces"}:
            continue
        lines = whole_lines(shop.platform.home / "logs" / f"{name}.log")
        entries = [json.loads(line) for line in lines if line]
        assert entries
        assert {entry["service"] for entry in entries} == {name}
        assert all({"timestamp", "level", "event", "version"} <= entry.keys() for entry in entries)
        requests = [entry for entry in entries if entry["event"] == "request"]
        assert all(len(entry["trace_id"]) == 32 for entry in requests)


def test_every_request_at_the_gateway_has_a_trace_id(shop: Shop) -> None:
    """Also one that was refused, and one that came without a traceparent."""
    wanted = {
        shop.call("GET", path).headers["x-request-id"] for path in ("/v1/items", "/v1/orders", "/x")
    }
    log = shop.platform.home / "logs" / "gateway.log"

    def lines() -> list[dict[str, Any]] | None:
        found = log_lines(log, lambda line: line.get("request_id") in wanted)
        return found if len(found) == len(wanted) else None

    found = eventually(lines, 60)
    assert all(len(line["trace_id"]) == 32 for line in found), found
    assert all(line["service"] == "gateway" for line in found)
