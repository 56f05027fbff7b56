"""Rate limits: each client has a bucket of its own, and nobody pays for another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.gateway.harness import Gateway, Issuer, Response, Upstreams, free_ports, wait_until

BURST = 4
# So slow a refill that no token comes back during a test.
SLOW = {"requestsPerSecond": 0.01, "burst": BURST}


def limited(start_gateway: Callable[..., Gateway], issuer: Issuer, **values: Any) -> Gateway:
    """Start a gateway with small buckets."""
    keys = {"apiKeys": {"rateLimit": {"requestsPerSecond": 100, "burst": 200}}}
    gateway = start_gateway({"rateLimits": SLOW, **keys, **values})
    subjects = iter(range(1000))

    def ready() -> bool:
        headers = {"Authorization": f"Bearer {issuer.token(f'probe-{next(subjects)}')}"}
        return gateway.get("/v1/orders", headers).status == 200

    wait_until(ready, "the signing keys")
    return gateway


def burst(gateway: Gateway, path: str, headers: dict[str, str], count: int) -> list[int]:
    return [gateway.get(path, headers).status for _ in range(count)]


def as_user(issuer: Issuer, subject: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(subject)}"}


def check_refusal(answer: Response) -> None:
    """Check that a 429 says when to come back, and is a problem."""
    assert answer.status == 429, answer
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-ratelimit-limit"].startswith(str(BURST))
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert int(answer.headers["x-ratelimit-reset"]) >= 1
    assert answer.problem()["title"] == "Too Many Requests"


def test_one_client_is_limited_and_another_is_not(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """The bucket belongs to the token's subject, over all routes and all its tokens."""
    gateway = limited(start_gateway, issuer)
    ann = as_user(issuer, "ann")
    first = gateway.get("/v1/orders", ann)
    assert first.headers["x-ratelimit-remaining"] == str(BURST - 1)
    assert burst(gateway, "/v1/items", ann, BURST - 1) == [200] * (BURST - 1)
    check_refusal(gateway.get("/v1/orders", ann))
    check_refusal(gateway.get("/v1/notifications", ann))
    check_refusal(
        gateway.get("/v1/orders", {"Authorization": f"Bearer {issuer.token('ann', jti='2')}"})
    )
    assert gateway.get("/v1/orders", as_user(issuer, "bob")).status == 200
    assert gateway.get("/v1/items").status == 200  # the address has a bucket of its own


def test_without_a_token_the_address_counts(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """Unverified claims, made-up headers and unknown paths do not give a fresh bucket."""
    gateway = limited(start_gateway, issuer, trustedHops=1)
    here = {"X-Forwarded-For": "192.0.2.1"}
    assert burst(gateway, "/.well-known/openid-configuration", here, 2) == [200, 200]
    assert burst(gateway, "/nowhere", here, 2) == [404, 404]
    check_refusal(gateway.get("/.well-known/openid-configuration", here))
    for made_up in (
        {"X-Slipway-Subject": "someone"},
        {"X-Slipway-Key": "1"},
        {"Authorization": f"Bearer {Issuer().token('someone')}"},
        {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"},
    ):
        check_refusal(gateway.get("/.well-known/openid-configuration", {**here, **made_up}))
    assert (
        gateway.get("/.well-known/openid-configuration", {"X-Forwarded-For": "192.0.2.2"}).status
        == 200
    )


def test_an_ipv6_network_is_one_client(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """A /64 is what one customer gets: its addresses share a bucket."""
    gateway = limited(start_gateway, issuer, trustedHops=1)
    answers = [
        gateway.get("/v1/items", {"X-Forwarded-For": f"2001:db8:0:1::{n:x}"}).status
        for n in range(1, BURST + 3)
    ]
    assert answers == [200] * BURST + [429, 429]
    assert gateway.get("/v1/items", {"X-Forwarded-For": "2001:db8:0:2::1"}).status == 200


def test_an_api_key_is_a_client(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """Two keys of one owner have a bucket each, apart from the owner's own."""
    gateway = limited(start_gateway, issuer)
    for name in ("1", "2"):
        upstreams.keys[name] = issuer.token("ann", key_id=name)
    assert burst(gateway, "/v1/orders", {"X-API-Key": "1"}, BURST) == [200] * BURST
    check_refusal(gateway.get("/v1/orders", {"X-API-Key": "1"}))
    assert gateway.get("/v1/orders", {"X-API-Key": "2"}).status == 200
    assert gateway.get("/v1/orders", as_user(issuer, "ann")).status == 200


def test_guessed_keys_do_not_flood_auth(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """Requests with a key are limited by address before auth is asked, whatever the key."""
    keys = {"rateLimit": {"requestsPerSecond": 0.01, "burst": 3}}
    gateway = limited(start_gateway, issuer, apiKeys=keys)
    answers = [gateway.get("/v1/orders", {"X-API-Key": f"guess-{n}"}) for n in range(8)]
    assert [a.status for a in answers] == [401] * 3 + [429] * 5
    assert answers[-1].problem()["title"] == "Too Many Requests"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert len(upstreams.exchanges) == 3
    assert gateway.get("/v1/orders", as_user(issuer, "ann")).status == 200


def test_sign_in_is_stricter_and_by_address(start_gateway: Callable[..., Gateway]):
    """The tree's own limits: 20 at once wherever a password is checked, then 429; others go on."""
    # Auth is away and nothing is retried, so that the answers come quickly on a busy machine.
    (port,) = free_ports(1)
    retries = {"attempts": 0, "budgetPercent": 20, "minConcurrency": 3}
    gateway = start_gateway(
        {"upstream": {"retries": retries}}, dict.fromkeys(("auth", "info"), f"127.0.0.1:{port}")
    )
    # The versions of a path share the bucket.
    for paths in (("/v1/token",), ("/v1/users", "/v2/users"), ("/login/",), ("/info/",)):
        method = "GET" if paths == ("/info/",) else "POST"
        begin = time.monotonic()
        answers = [status for path in paths for status in gateway.repeat(method, path, 200)]
        passed, elapsed = answers.count(503), time.monotonic() - begin
        assert answers[:20] == [503] * 20, paths
        assert passed <= 20 + 5 * elapsed + 1, paths
        assert answers.count(429) == len(answers) - passed > 0, paths
    assert gateway.get("/nowhere").status == 404


def test_the_default_is_fifty_a_second_with_a_burst_of_hundred(
    start_gateway: Callable[..., Gateway],
):
    """A hundred requests at once pass; then fifty a second, and the rest is refused."""
    gateway = start_gateway()
    begin = time.monotonic()
    answers = gateway.repeat("GET", "/nowhere", 1000)
    passed, elapsed = answers.count(404), time.monotonic() - begin
    assert answers[:100] == [404] * 100
    assert passed <= 100 + 50 * elapsed + 1
    assert passed + answers.count(429) == 1000
    wait_until(lambda: gateway.get("/v1/items").status == 200, "the bucket to fill")


def test_many_clients_each_keep_their_bucket(
    start_gateway: Callable[..., Gateway], upstreams: Upstreams, issuer: Issuer
):
    """More clients than Envoy's default of 20 buckets: none is forgotten, none shares."""
    gateway = limited(start_gateway, issuer, trustedHops=1)
    clients = [{"X-Forwarded-For": f"192.0.2.{n}"} for n in range(60)]
    for _ in range(BURST):
        assert {gateway.get("/v1/items", c).status for c in clients} == {200}
    assert {gateway.get("/v1/items", c).status for c in clients} == {429}


def test_an_address_is_bounded_before_its_tokens_are_verified(
    start_gateway: Callable[..., Gateway], issuer: Issuer
):
    """Forged tokens cost a verification each; a flood of them is refused unlooked at."""
    address = {"requestsPerSecond": 0.01, "burst": 30}
    gateway = start_gateway({"rateLimits": {"address": address}})
    forger = Issuer("k1")
    answers = [gateway.get("/v1/orders", as_user(forger, f"nobody-{n}")) for n in range(40)]
    statuses = [answer.status for answer in answers]
    assert 429 not in statuses[:20]
    assert statuses[30:] == [429] * 10
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].problem()["title"] == "Too Many Requests"
    assert gateway.stat("addresses.http_local_rate_limit.rate_limited") >= 10
    denied = gateway.stat("http.public.jwt_authn.denied")
    assert denied > 0
    assert gateway.get("/v1/orders", as_user(issuer, "ann")).status == 429
    assert gateway.stat("http.public.jwt_authn.denied") == denied
