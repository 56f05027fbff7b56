"""Labels are bounded: whatever clients send, the number of series stays what the routes make it."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chassis.metrics import METHODS, OTHER, UNMATCHED
from scripts.topology import load
from tests.local.platform_handle import eventually
from tests.system.harness import Buyer, Shop

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SERVICES = tuple(load().services)
# What is a route of a service though its API document does not show it.
UNSHOWN = {UNMATCHED, "/openapi.json", "/docs", "/docs/oauth2-redirect", "/events"}
PER_METRIC = 2500
"""Far above what the routes make, far below what one busy id would."""

Series = tuple[str, frozenset[tuple[str, str]]]


def series(text: str) -> set[Series]:
    """Every series of an exposition."""
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def operations(shop: Shop, service: str) -> dict[str, list[str]]:
    """The paths of a service's API document and their methods."""
    paths = shop.call("GET", "/openapi.json", at=service).json()["paths"]
    return {path: [method.upper() for method in each] for path, each in paths.items()}


def requests(paths: dict[str, list[str]], mark: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests with this mark in every place that a client chooses: ids, paths, bodies, methods."""
    for path, methods in paths.items():
        filled = re.sub(r"\{\w+\}", f"{mark}-{secrets.token_hex(4)}", path)
        body = {"email": f"{mark}@example.org", "password": mark, "id": mark}
        for method in methods:
            yield method, f"{filled}?q={mark}", {"json": body}
        yield "PATCH", filled, {"json": body}
        yield "PROPFIND", filled, {}  # known to HTTP, not to us
        yield f"X{mark.upper()}", filled, {}  # the server refuses it
    for path in (f"/{mark}", f"/v1/{mark}/{mark}", f"/v9/{mark}", "//", f"/v1/%2e%2e/{mark}"):
        yield "GET", path, {}
    yield mark.upper(), f"/{mark}", {}


def hit(shop: Shop, service: str, who: Buyer | None, mark: str) -> Counter[int]:
    """Send all of them; how many were answered with which status."""
    answered: Counter[int] = Counter()
    headers = {"X-Request-ID": mark, "User-Agent": mark, "X-API-Version": mark}
    for method, path, more in requests(operations(shop, service), mark):
        answer = shop.call(method, path, at=service, who=who, **more)
        answered[answer.status_code] += 1
    shop.call("GET", "/livez", at=service, headers=headers)
    unversioned = {"X-Request-ID": mark, "User-Agent": mark, "Host": f"{mark}.example"}
    shop.call("GET", f"/{mark}", at=service, headers=unversioned)
    return answered


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_series_of_its_routes(shop: Shop, service: str) -> None:
    """Two rounds of requests make all the series there are; others with new values make none."""
    [buyer] = shop.buyers(1)
    marks = [f"zq{secrets.token_hex(6)}" for _ in range(4)]

    def told() -> str:
        return shop.call("GET", "/metrics", at=service).text

    for mark in marks[:2]:
        answered = hit(shop, service, buyer, mark)
        assert answered[404] >= 3, answered
        hit(shop, service, None, mark)
    before = series(told())
    for mark in marks[2:]:
        hit(shop, service, buyer, mark)
        hit(shop, service, None, mark)
    text = told()
    after = series(text)

    assert not {each for each in after - before if each[0].startswith("http_request")}
    # Elsewhere something may happen for the first time: a purge, a breaker.
    assert len(after) <= len(before) + 50
    for mark in marks:
        assert mark not in text.lower()
    assert not re.search(r'="[^"]*@', text), "an email address"
    assert not re.search(r'="[^"]*[0-9a-f]{8}-[0-9a-f]{4}-', text), "an id"
    labels = [dict(labels) for name, labels in after if name == "http_requests_total"]
    known = UNSHOWN | operations(shop, service).keys()
    routes = {each["route"] for each in labels}
    assert routes <= known, routes - known
    assert UNMATCHED in routes
    assert {each["method"] for each in labels} <= METHODS | {OTHER}
    assert OTHER in {each["method"] for each in labels}
    assert all(re.fullmatch(r"[1-5]\d\d|0", each["status"]) for each in labels)
    assert max(Counter(name for name, _ in after).values()) <= PER_METRIC


def test_the_gateway_has_the_series_of_its_clusters(shop: Shop) -> None:
    """Users, paths, hosts and methods of clients are no labels there either."""
    status = shop.platform.process("gateway")

    def told() -> str:
        return shop.get(status["metrics"]).text

    marks = [f"zq{secrets.token_hex(6)}" for _ in range(4)]

    def round_of(mark: str) -> None:
        [buyer] = shop.buyers(1)
        for who in (buyer, None):
            for path in ("/v1/items/", "/v1/orders/", "/v1/users/", "/", "/v2/items/"):
                shop.call("GET", f"{path}{mark}", who=who, headers={"User-Agent": mark})
            shop.call("POST", "/v1/orders", who=who, json={"mark": mark})
            shop.call("GET", "/v1/items", who=who, headers={"Host": f"{mark}.example"})
            shop.call("GET", "/v1/keys", headers={"X-API-Key": f"slk_{mark}"})
            try:
                shop.call(f"X{mark.upper()}", "/v1/items", who=who)
            except httpx2.TransportError:
                continue  # Envoy closes on a method that it does not know

    for mark in marks[:2]:
        round_of(mark)
    before = series(eventually(told))
    for mark in marks[2:]:
        round_of(mark)
    text = told()
    after = series(text)
    # A status that had not been seen yet is a series more; its number is bounded by itself.
    new = {each for each in after - before if "response_code" not in str(each[1])}
    assert len(new) <= 20, new
    for mark in marks:
        assert mark not in text.lower()
    assert max(Counter(name for name, _ in after).values()) <= PER_METRIC
    assert len(after) < 20_000
