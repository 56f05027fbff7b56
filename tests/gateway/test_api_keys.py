"""API keys: exchanged at auth for a token, before anything else looks at the request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gateway.conftest import UNLIMITED, has_keys
from tests.gateway.harness import Gateway, Issuer, Upstreams, free_ports, wait_until


def test_a_key_becomes_a_token(gateway: Gateway, upstreams: Upstreams, issuer: Issuer):
    """The service sees the token that auth gave, and never the key."""
    token = upstreams.keys["slk_1_good"] = issuer.token("owner", key_id="1")
    answer = gateway.get("/v1/orders", {"X-API-Key": "slk_1_good"})
    assert answer.status == 200, answer
    headers = answer.json()["headers"]
    assert headers["authorization"] == f"Bearer {token}"
    assert "x-api-key" not in headers
    assert upstreams.exchanges == ["slk_1_good"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_the_exchange_works_for_every_method(
    gateway: Gateway, upstreams: Upstreams, issuer: Issuer, method: str
):
    """The body is for the service: auth gets the key alone."""
    upstreams.keys["k"] = issuer.token()
    body = b"x" * 1000 if method in {"POST", "PUT", "PATCH"} else None
    answer = gateway.request(method, "/v1/orders/1", {"X-API-Key": "k"}, body)
    assert answer.status == 200
    assert answer.json()["body_bytes"] == len(body or b"")
    assert answer.json()["method"] == method


def test_without_a_key_auth_is_not_asked(
    gateway: Gateway, upstreams: Upstreams, bearer: dict[str, str]
):
    """A bearer token needs no exchange."""
    assert gateway.get("/v1/orders", bearer).status == 200
    assert upstreams.exchanges == []


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/items", "/info/"])
def test_a_refused_key_is_401(gateway: Gateway, upstreams: Upstreams, path: str):
    """Unknown, revoked or expired: the same problem on every route, with auth's challenge."""
    answer = gateway.get(path, {"X-API-Key": "slk_1_bad"})
    assert answer.status == 401
    assert answer.problem()["detail"].startswith("A valid access token or API key")
    assert answer.headers["www-authenticate"] == 'ApiKey realm="slipway"'
    assert upstreams.seen == []


def test_an_empty_key_is_no_way_in(gateway: Gateway, upstreams: Upstreams):
    """An empty header neither passes nor brings anybody's token."""
    assert gateway.get("/v1/orders", {"X-API-Key": ""}).status == 401
    assert upstreams.seen == []


def test_a_key_wins_over_a_token(
    gateway: Gateway, upstreams: Upstreams, issuer: Issuer, bearer: dict[str, str]
):
    """With both, the service sees the key's token; a good token does not save a bad key."""
    token = upstreams.keys["k"] = issuer.token("owner")
    headers = gateway.get("/v1/orders", {**bearer, "X-API-Key": "k"}).json()["headers"]
    assert headers["authorization"] == f"Bearer {token}"
    assert gateway.get("/v1/orders", {**bearer, "X-API-Key": "bad"}).status == 401


def test_what_auth_answers_is_verified(gateway: Gateway, upstreams: Upstreams):
    """A token from the exchange is checked like any other."""
    upstreams.keys["k"] = Issuer("other").token()
    assert gateway.get("/v1/orders", {"X-API-Key": "k"}).status == 401
    assert upstreams.seen == []


@pytest.mark.parametrize(("auth_says", "client_gets"), [(403, 403), (500, 503), (503, 503)])
def test_other_answers_of_auth(
    gateway: Gateway, upstreams: Upstreams, auth_says: int, client_gets: int
):
    """403 is passed on; a failing auth is 503, never a way in."""
    upstreams.keys["k"] = str(auth_says)
    answer = gateway.get("/v1/items", {"X-API-Key": "k"})
    assert answer.status == client_gets
    assert answer.problem()["status"] == client_gets
    assert upstreams.seen == []


def test_auth_away_is_503(start_gateway: Callable[..., Gateway], upstreams: Upstreams):
    """Without auth a key is worth nothing; a request without a key goes on."""
    (port,) = free_ports(1)
    gateway = start_gateway(UNLIMITED, {"auth": f"127.0.0.1:{port}"})
    answer = gateway.get("/v1/items", {"X-API-Key": "k"})
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.problem()["title"] == "Service Unavailable"
    assert upstreams.seen == []
    assert gateway.get("/v1/items").status == 200


def test_switched_off_keys_are_dropped(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """With apiKeys.enabled false a key neither helps nor reaches a service."""
    gateway = start_gateway({**UNLIMITED, "apiKeys": {"enabled": False}})
    wait_until(lambda: has_keys(gateway, issuer), "the signing keys")
    upstreams.seen.clear()
    upstreams.keys["k"] = issuer.token()
    assert gateway.get("/v1/orders", {"X-API-Key": "k"}).status == 401
    assert "x-api-key" not in gateway.get("/v1/items", {"X-API-Key": "k"}).json()["headers"]
    assert upstreams.exchanges == []
