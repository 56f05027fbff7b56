"""Access tokens at the gateway: who gets in, and what happens when auth is away."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable

import pytest

from tests.gateway.conftest import UNLIMITED, has_keys
from tests.gateway.harness import (
    AUDIENCE,
    ISSUER,
    Gateway,
    Issuer,
    Upstreams,
    free_ports,
    wait_until,
)


def test_a_good_token_passes_and_goes_on(gateway: Gateway, issuer: Issuer):
    """The service gets the same token to verify again; the gateway's own headers end here."""
    token = issuer.token(key_id="k")
    seen = gateway.get("/v1/orders", {"Authorization": f"Bearer {token}"}).json()["headers"]
    assert seen["authorization"] == f"Bearer {token}"
    assert not [name for name in seen if name.startswith(("x-slipway", "x-envoy", "x-jwt"))]


def _unsigned(issuer: Issuer) -> str:
    _, payload, _ = issuer.token().split(".")
    header = _encode(b'{"alg":"none","typ":"at+jwt"}')
    return f"{header}.{payload}."


def _confused(issuer: Issuer) -> str:
    """Signed by HMAC with the public key's text as the secret."""
    header = {"alg": "HS256", "kid": issuer.key.kid, "typ": "at+jwt"}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "admin", "exp": int(time.time()) + 60}
    signed = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    digest = hmac.new(issuer.key.as_pem(private=False), signed.encode(), "sha256").digest()
    return f"{signed}.{_encode(digest)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _tampered(issuer: Issuer) -> str:
    header, payload, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["sub"] = "admin"
    return f"{header}.{_encode(json.dumps(claims).encode())}.{signature}"


BAD_TOKENS: dict[str, Callable[[Issuer], str]] = {
    "expired": lambda i: i.token(lifetime=-60),
    "not yet valid": lambda i: i.token(nbf=int(time.time()) + 60),
    "without an end": lambda i: i.token(exp=None),
    "of another issuer": lambda i: i.token(iss="https://elsewhere"),
    "without an issuer": lambda i: i.token(iss=None),
    "for another audience": lambda i: i.token(aud="other"),
    "without an audience": lambda i: i.token(aud=None),
    "signed by another key": lambda _: Issuer("k1").token(),
    "with an unknown kid": lambda _: Issuer("k2").token(),
    "alg none": _unsigned,
    "algorithm confusion": _confused,
    "tampered with": _tampered,
    "no JWT": lambda _: "slk_1_secret",
}


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/items"])
@pytest.mark.parametrize("bad", BAD_TOKENS)
def test_a_bad_token_is_401(
    gateway: Gateway, upstreams: Upstreams, issuer: Issuer, path: str, bad: str
):
    """Required or optional: a bearer token that does not hold reaches no service."""
    token = BAD_TOKENS[bad](issuer)
    answer = gateway.get(path, {"Authorization": f"Bearer {token}"})
    assert answer.status == 401, answer
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.problem()["title"] == "Unauthorized"
    assert upstreams.seen == []


def test_clocks_may_differ_by_ten_seconds(gateway: Gateway, issuer: Issuer):
    """The leeway of 10 s holds for the end and for the beginning."""
    for token in (issuer.token(lifetime=-5), issuer.token(nbf=int(time.time()) + 5)):
        assert gateway.get("/v1/orders", {"Authorization": f"Bearer {token}"}).status == 200


def test_without_a_token(gateway: Gateway, upstreams: Upstreams):
    """Required is 401; optional and none pass."""
    answer = gateway.get("/v1/orders")
    assert answer.status == 401
    assert "www-authenticate" in answer.headers
    assert answer.problem()["instance"] == "/v1/orders"
    assert upstreams.seen == []
    assert gateway.get("/v1/items").status == 200
    assert gateway.get("/info/").status == 200


def test_a_token_in_the_query_or_a_cookie_is_no_token(gateway: Gateway, issuer: Issuer):
    """Only the Authorization header counts: a query would end in logs."""
    token = issuer.token()
    assert gateway.get(f"/v1/orders?access_token={token}").status == 401
    assert gateway.get("/v1/orders", {"Cookie": f"access_token={token}"}).status == 401


def test_other_schemes_pass_where_a_token_is_optional(gateway: Gateway):
    """Basic credentials are not a bearer token: the service decides."""
    basic = {"Authorization": "Basic dTpw"}
    assert gateway.get("/v1/items", basic).json()["headers"]["authorization"] == "Basic dTpw"
    assert gateway.get("/v1/orders", basic).status == 401


def test_auth_none_is_not_looked_at(gateway: Gateway):
    """/info/ and /login/ get what the client sent, whatever it is."""
    for value in ("Bearer slk_1_secret", "Bearer a.b.c", "Basic dTpw", "nonsense"):
        for method, path in (("GET", "/info/"), ("POST", "/login/")):
            answer = gateway.request(method, path, {"Authorization": value})
            assert answer.json()["headers"]["authorization"] == value


def test_two_authorization_headers_are_not_both_believed(gateway: Gateway, issuer: Issuer):
    """A bad token beside a good one does not get through."""
    good, bad = issuer.token(), Issuer("k1").token("admin")
    answer = gateway.raw(
        b"GET /v1/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Authorization: Bearer " + good.encode() + b"\r\n"
        b"Authorization: Bearer " + bad.encode() + b"\r\n\r\n"
    )
    assert b" 401 " in answer.split(b"\r\n")[0]


def test_valid_tokens_work_while_auth_is_away(
    start_gateway: Callable[..., Gateway], issuer: Issuer
):
    """Keys are fetched ahead and kept: an outage of auth stops nobody who has a token."""
    auth = Upstreams(issuer, ("auth",))
    auth.start()
    values = {**UNLIMITED, "jwt": {"refreshSeconds": 10}}
    try:
        gateway = start_gateway(values, auth.addresses)
        wait_until(lambda: has_keys(gateway, issuer), "the signing keys")
    finally:
        auth.stop()
    failures = "http.public.jwt_authn.jwks_fetch_failed"
    before = gateway.stat(failures)
    wait_until(lambda: gateway.stat(failures) > before, "a failed refresh")
    assert has_keys(gateway, issuer)
    assert gateway.get("/v1/users").problem()["title"] == "Service Unavailable"


def test_auth_may_be_away_when_the_gateway_starts(
    start_gateway: Callable[..., Gateway], issuer: Issuer
):
    """The listener opens at once; tokens are 503, not 401, until the keys have come."""
    (port,) = free_ports(1)
    gateway = start_gateway(UNLIMITED, {"auth": f"127.0.0.1:{port}"})
    assert gateway.get("/v1/items").status == 200
    answer = gateway.get("/v1/orders", {"Authorization": f"Bearer {issuer.token()}"})
    assert answer.status == 503, answer
    assert answer.problem()["detail"].startswith("Tokens cannot be verified")
    assert answer.headers["retry-after"] == "1"
    assert gateway.get("/v1/orders").status == 401
    auth = Upstreams(issuer, ("auth",))
    auth.start(port)
    try:
        wait_until(lambda: has_keys(gateway, issuer), "the signing keys")
    finally:
        auth.stop()


def test_a_new_signing_key_is_found(start_gateway: Callable[..., Gateway], issuer: Issuer):
    """After a rotation the next refresh brings the new key; tokens of the old one still hold."""
    auth = Upstreams(issuer, ("auth",))
    auth.start()
    try:
        gateway = start_gateway({**UNLIMITED, "jwt": {"refreshSeconds": 10}}, auth.addresses)
        wait_until(lambda: has_keys(gateway, issuer), "the signing keys")
        rotated = Issuer("next")
        assert not has_keys(gateway, rotated)
        auth.more_keys.append(rotated)
        wait_until(lambda: has_keys(gateway, rotated), "the new key")
        assert has_keys(gateway, issuer)
    finally:
        auth.stop()


def test_a_withdrawn_signing_key_is_forgotten(start_gateway: Callable[..., Gateway]):
    """With the next refresh; a token that was taken before goes with it, if none is kept."""
    leaked, new = Issuer("leaked"), Issuer("new")
    auth = Upstreams(leaked, ("auth", "orders"))
    auth.start()
    try:
        values = {**UNLIMITED, "jwt": {"refreshSeconds": 10, "cachedTokens": 0}}
        gateway = start_gateway(values, auth.addresses)
        wait_until(lambda: has_keys(gateway, leaked), "the signing keys")
        taken = {"Authorization": f"Bearer {leaked.token(lifetime=86_400)}"}
        assert gateway.get("/v1/orders", taken).status == 200
        auth.issuer = new
        wait_until(lambda: has_keys(gateway, new), "the new key")
        wait_until(lambda: not has_keys(gateway, leaked), "the old key to go")
        wait_until(lambda: gateway.get("/v1/orders", taken).status == 401, "the kept token")
    finally:
        auth.stop()
