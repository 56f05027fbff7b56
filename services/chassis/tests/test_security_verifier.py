"""Verification of access tokens, and the attacks on it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey

from chassis.security.verifier import InvalidTokenError, TokenVerifier
from chassis.settings import ServiceSettings
from chassis.testing import FakeClock, TestIssuer


def part(value):
    """Return one part of a compact JWS."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(segment):
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


class Served(httpx2.AsyncBaseTransport):
    """Serves the JWKS of an issuer in process, and counts how often it is asked."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.fetches = 0

    async def handle_async_request(self, request):
        """Answer with the keys of this moment."""
        self.fetches += 1
        return httpx2.Response(200, json=self.issuer.jwks(), request=request)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def served(token_issuer):
    return Served(token_issuer)


@pytest.fixture
def verifier(make_settings, clock, served):
    return TokenVerifier(make_settings(ServiceSettings), clock=clock, transport=served)


async def refused(verifier, token):
    with pytest.raises(InvalidTokenError) as error:
        await verifier.verify(token)
    return str(error.value)


async def test_a_good_token_says_who_calls(verifier, token_issuer):
    """Subject, scopes, client and claims come out."""
    token = token_issuer.token("user-1", "orders:read orders:write", client_id="web", extra=1)
    principal = await verifier.verify(token)
    assert principal.subject == "user-1"
    assert principal.scopes == {"orders:read", "orders:write"}
    assert principal.client_id == "web"
    assert principal.claims["extra"] == 1
    assert principal.has("orders:read")
    assert not principal.has("orders:read", "items:write")


async def test_a_list_of_audiences_may_hold_ours(verifier, token_issuer):
    """RFC 7519 allows `aud` to be a list."""
    await verifier.verify(token_issuer.token(aud=["other", "slipway"]))
    assert "aud" in await refused(verifier, token_issuer.token(aud=["other"]))


async def test_without_scope_there_are_no_scopes(verifier, token_issuer):
    """A token without the claim allows nothing special."""
    assert (await verifier.verify(token_issuer.token(scope=None))).scopes == frozenset()


# -- attacks on the signature ---------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
async def test_alg_none(verifier, token_issuer, alg):
    """An unsigned token is refused, with an empty signature and with any."""
    header, payload, signature = token_issuer.token().split(".")
    head = part({**decoded(header), "alg": alg})
    assert await refused(verifier, f"{head}.{payload}.")
    assert "algorithm" in await refused(verifier, f"{head}.{payload}.{signature}")


async def test_algorithm_confusion(verifier, token_issuer):
    """HS256 with the public key as the secret, in each form that an attacker can fetch."""
    header, payload, _ = token_issuer.token().split(".")
    head = part({**decoded(header), "alg": "HS256"})
    public = token_issuer.key.as_pem(private=False)
    for secret in (public, public.strip(), json.dumps(token_issuer.jwks()["keys"][0]).encode()):
        signed = f"{head}.{payload}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert "algorithm" in await refused(verifier, f"{signed}.{part(mac)}")


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
async def test_other_algorithms_of_the_right_key(verifier, token_issuer, alg):
    """Only RS256 is accepted, although the key could do more."""
    header, payload, _ = token_issuer.token().split(".")
    data = token_issuer.key.as_dict(private=True)
    key = RSAKey.import_key({name: value for name, value in data.items() if name != "alg"})
    token = jwt.encode({**decoded(header), "alg": alg}, decoded(payload), key, [alg])
    assert "algorithm" in await refused(verifier, token)


async def test_a_signature_by_another_key(verifier, token_issuer):
    """The right kid does not make a foreign signature good."""
    other = TestIssuer().key
    token = token_issuer.token(key=other, headers={"kid": token_issuer.key.kid})
    assert "signature" in await refused(verifier, token)


async def test_a_tampered_payload(verifier, token_issuer):
    """More scopes than were signed."""
    header, payload, signature = token_issuer.token(scopes="profile").split(".")
    better = part({**decoded(payload), "scope": "users:admin"})
    assert "signature" in await refused(verifier, f"{header}.{better}.{signature}")


async def test_a_tampered_header(verifier, token_issuer):
    """The header is signed, too."""
    header, payload, signature = token_issuer.token().split(".")
    other = part({**decoded(header), "x": 1})
    assert "signature" in await refused(verifier, f"{other}.{payload}.{signature}")


async def test_keys_that_the_token_brings_along_are_not_used(verifier, token_issuer, faulty_peer):
    """`jwk`, `jku`, `x5u` and `x5c` change nothing: not the key, and nothing is fetched."""
    attacker = TestIssuer().key
    kid = token_issuer.key.kid
    faulty_peer.respond(200, json={"keys": [{**attacker.as_dict(private=False), "kid": kid}]})
    headers = [
        {"jwk": attacker.as_dict(private=False)},
        {"jku": f"{faulty_peer.url}/jwks"},
        {"x5u": f"{faulty_peer.url}/cert"},
    ]
    for header in headers:
        forged = token_issuer.token(key=attacker, headers={**header, "kid": kid})
        assert "signature" in await refused(verifier, forged)
        # The same header on a token that is signed with a real key does no harm.
        assert await verifier.verify(token_issuer.token(headers=header))
    assert faulty_peer.requests == []


async def test_critical_headers_are_refused(verifier, token_issuer):
    """`crit` demands that an extension is understood; none is."""
    header, payload, signature = token_issuer.token().split(".")
    for extra in ({"crit": ["b64"], "b64": False}, {"crit": ["exp"], "exp": 1}, {"crit": []}):
        head = part({**decoded(header), **extra})
        assert await refused(verifier, f"{head}.{payload}.{signature}")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "id+jwt", "logout+jwt", "", None])
async def test_other_kinds_of_jwt_are_refused(verifier, token_issuer, kind):
    """An ID token or a log-out token is no access token (RFC 9068)."""
    assert "access token" in await refused(verifier, token_issuer.token(headers={"typ": kind}))


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt"])
async def test_spellings_of_the_right_kind(verifier, token_issuer, kind):
    """Media types do not depend on case, and may have their prefix."""
    assert await verifier.verify(token_issuer.token(headers={"typ": kind}))


@pytest.mark.parametrize("kid", [None, "", 7, ["a"], {"a": 1}])
async def test_a_key_id_is_needed(verifier, token_issuer, kid):
    """Without a usable kid no key is tried."""
    header, payload, signature = token_issuer.token().split(".")
    head = {name: value for name, value in decoded(header).items() if name != "kid"}
    if kid is not None:
        head["kid"] = kid
    assert await refused(verifier, f"{part(head)}.{payload}.{signature}")


async def test_an_unknown_key_id(verifier, token_issuer):
    """A kid that the issuer does not publish."""
    assert "unknown" in await refused(verifier, token_issuer.token(headers={"kid": "no-such"}))


# -- claims ---------------------------------------------------------------------------------------


async def test_expiry_with_leeway(verifier, token_issuer, clock):
    """Ten seconds of difference between clocks are forgiven, not more."""
    now = clock.now().timestamp()
    assert await verifier.verify(token_issuer.token(issued_at=now - 60, exp=int(now) - 9))
    assert "expired" in await refused(
        verifier, token_issuer.token(issued_at=now - 60, exp=int(now) - 10)
    )


async def test_a_token_expires_while_it_is_cached(verifier, token_issuer, clock):
    """A verdict is kept no longer than the token lives."""
    token = token_issuer.token(expires_in=30, issued_at=clock.now().timestamp())
    await verifier.verify(token)
    clock.advance(39)
    await verifier.verify(token)
    clock.advance(1)
    assert "expired" in await refused(verifier, token)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_tokens_from_the_future(verifier, token_issuer, clock, claim):
    """Not yet valid, beyond the leeway."""
    now = int(clock.now().timestamp())
    assert await verifier.verify(token_issuer.token(**{claim: now + 9}))
    assert claim in await refused(verifier, token_issuer.token(**{claim: now + 20}))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "iat"])
async def test_claims_that_must_be_there(verifier, token_issuer, claim):
    """Each missing claim is refused by name."""
    assert claim in await refused(verifier, token_issuer.token(**{claim: None}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "http://evil.test"),
        ("iss", "http://issuer.test/"),
        ("iss", ["http://issuer.test"]),
        ("aud", "other"),
        ("aud", {"slipway": 1}),
        ("aud", ""),
        ("sub", ""),
        ("sub", 7),
        ("exp", "tomorrow"),
        ("exp", True),
        ("exp", [9e9]),
        ("nbf", "now"),
        ("iat", "now"),
        ("scope", ["items:write"]),
        ("scope", 7),
        ("client_id", 7),
    ],
)
async def test_claims_that_are_wrong(verifier, token_issuer, claim, value):
    """Other issuers, other audiences, other types."""
    await refused(verifier, token_issuer.token(**{claim: value}))


async def test_numbers_that_are_no_dates(verifier, token_issuer):
    """NaN and Infinity are not JSON, yet Python's parser knows them; they never last for ever."""
    for value in (float("nan"), float("inf"), 10**400):
        try:
            await verifier.verify(token_issuer.token(exp=value))
        except InvalidTokenError:
            continue
        assert value == 10**400, "only a finite number may pass"


# -- form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "a b.c.d", "é.é.é", "\ud800.a.b", "a.b.c\n",
     f"{part([1])}.{part({})}.{part(b'x')}", f"{part(b'[' * 3000)}.{part({})}.{part(b'x')}",
     f"{part(b'{')}.{part({})}.{part(b'x')}", f"{part('x')}.{part({})}.{part(b'x')}",
     f"{part({'alg': None})}.{part({})}.{part(b'x')}", f"{part({})}.{part({})}.{part(b'x')}"],
)  # fmt: skip
async def test_what_is_no_jwt_is_refused(verifier, served, token):
    """Malformed input gets a verdict, never an accident; and no keys are fetched for it."""
    await refused(verifier, token)
    assert served.fetches == 0


async def test_a_huge_token_is_not_even_looked_at(verifier, served, token_issuer):
    """More than 8 KiB is refused before anything is parsed."""
    token = token_issuer.token(padding="x" * 8192)
    assert "too long" in await refused(verifier, token)
    assert served.fetches == 0


anything = st.text(max_size=200)
three_parts = st.lists(st.binary(max_size=40), min_size=3, max_size=3)


def test_any_text_gets_a_verdict(make_settings, clock, served):
    """Whatever a client sends, the outcome is InvalidTokenError."""
    verifier = TokenVerifier(make_settings(ServiceSettings), clock=clock, transport=served)
    with asyncio.Runner() as runner:

        @settings(max_examples=200, deadline=None)
        @given(token=anything | three_parts.map(lambda parts: ".".join(map(part, parts))))
        def check(token):
            runner.run(refused(verifier, token))

        check()


# -- the cache ------------------------------------------------------------------------------------


async def test_a_verdict_is_kept(verifier, token_issuer):
    """The same token gives the same principal object: its signature is checked once."""
    token = token_issuer.token()
    assert await verifier.verify(token) is await verifier.verify(token)


async def test_the_cache_is_bounded(make_settings, clock, served, token_issuer):
    """However many tokens come, memory stays; the one not used for longest goes first."""
    verifier = TokenVerifier(
        make_settings(ServiceSettings), clock=clock, transport=served, cache_size=3
    )
    tokens = [token_issuer.token(f"u{number}") for number in range(4)]
    first, second = [await verifier.verify(token) for token in tokens[:2]]
    await verifier.verify(tokens[2])
    assert await verifier.verify(tokens[0]) is first
    await verifier.verify(tokens[3])
    assert len(verifier._cache) == 3
    assert await verifier.verify(tokens[0]) is first
    assert await verifier.verify(tokens[1]) is not second


async def test_a_token_dies_with_its_key(make_settings, clock):
    """When the issuer withdraws a key, cached verdicts of its tokens are worth nothing."""
    issuer = TestIssuer()
    served = Served(issuer)
    verifier = TokenVerifier(make_settings(ServiceSettings), clock=clock, transport=served)
    token = issuer.token(expires_in=86400)
    await verifier.verify(token)
    issuer.rotate()
    issuer.keys.pop(0)
    clock.advance(301)
    await verifier.verify(token)  # begins the refresh, and is still good meanwhile
    await clock.settle()
    assert "unknown" in await refused(verifier, token)
    assert await verifier.verify(issuer.token(issued_at=clock.now().timestamp()))


async def test_a_replaced_key_of_the_same_name_is_another_key(make_settings, clock):
    """A kid that now names another key does not keep old verdicts alive."""
    issuer = TestIssuer()
    verifier = TokenVerifier(make_settings(ServiceSettings), clock=clock, transport=Served(issuer))
    token = issuer.token(expires_in=86400)
    await verifier.verify(token)
    data = TestIssuer().key.as_dict(private=True)
    issuer.keys = [RSAKey.import_key({**data, "kid": issuer.key.kid})]
    clock.advance(301)
    await verifier.verify(token)
    await clock.settle()
    assert "signature" in await refused(verifier, token)
