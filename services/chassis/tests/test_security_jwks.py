"""The cache of the issuer's keys: how often it asks, and what it does while the issuer is away."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace

from chassis.http.transport import AiohttpTransport
from chassis.security.jwks import JwksCache, KeysUnavailableError
from chassis.telemetry import PassedSpan
from chassis.testing import TestIssuer


@pytest.fixture
def issuer():
    return TestIssuer()


@pytest.fixture
def serve(faulty_peer, issuer):
    """Serve the keys of this moment; a function, because tests bring them back after a fault."""

    def publish():
        faulty_peer.respond(200, json=issuer.jwks())

    publish()
    return publish


@pytest.fixture
async def cache(faulty_peer, fake_clock):
    transport = AiohttpTransport()
    cache = JwksCache(
        f"{faulty_peer.url}/jwks.json",
        clock=fake_clock,
        transport=transport,
        refresh_seconds=300,
        min_refresh_seconds=10,
        connect_timeout=30,
        timeout=30,
    )
    yield cache
    await cache.close()
    await transport.aclose()


async def refreshed(cache):
    """Wait for the refresh under way."""
    while cache._refresh is not None:
        await asyncio.wait([cache._refresh])
        await asyncio.sleep(0)


async def test_keys_are_fetched_once(cache, serve, issuer, faulty_peer):
    """Many tokens, one fetch: also when the first ones come at the same time."""
    keys = await asyncio.gather(*(cache.find(issuer.key.kid) for _ in range(50)))
    assert all(key == keys[0] for key in keys)
    await cache.find(issuer.key.kid)
    assert len(faulty_peer.requests) == 1


async def test_old_keys_are_refreshed_in_the_background(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """After the refresh time the call gets the key at once, and the set is fetched beside it."""
    await cache.find(issuer.key.kid)
    fake_clock.advance(301)
    faulty_peer.hang()
    async with asyncio.timeout(60):
        assert await cache.find(issuer.key.kid)
    await faulty_peer.wait_for_requests(2)


async def test_a_new_key_is_found_at_once(cache, serve, issuer, faulty_peer, fake_clock):
    """A rotation is followed by the first token that is signed with the new key."""
    await cache.find(issuer.key.kid)
    fake_clock.advance(10)
    issuer.rotate()
    serve()
    assert await cache.find(issuer.key.kid)
    assert len(faulty_peer.requests) == 2


async def test_unknown_keys_cost_one_fetch_per_ten_seconds(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """A flood of forged key ids is answered from memory."""
    await cache.find(issuer.key.kid)
    for _ in range(3):
        fake_clock.advance(10)
        for number in range(100):
            assert await cache.find(f"forged-{number}") is None
    assert len(faulty_peer.requests) == 4


async def test_concurrent_unknown_keys_share_one_fetch(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """Single flight for unknown keys, too."""
    await cache.find(issuer.key.kid)
    fake_clock.advance(10)
    await asyncio.gather(*(cache.find(f"forged-{number}") for number in range(50)))
    assert len(faulty_peer.requests) == 2


async def test_known_keys_work_through_an_outage(cache, serve, issuer, faulty_peer, fake_clock):
    """While the issuer is away, known keys go on; it is asked at a bounded rate."""
    await cache.find(issuer.key.kid)
    faulty_peer.respond(503)
    for _ in range(100):
        fake_clock.advance(5)
        assert await cache.find(issuer.key.kid)
        await refreshed(cache)
    outage = len(faulty_peer.requests) - 1
    assert 15 <= outage <= 21, "100 calls in 500 s; old after 300 s, then each 10 s"
    serve()
    fake_clock.advance(86_400)
    assert await cache.find(issuer.key.kid)
    await refreshed(cache)
    assert len(faulty_peer.requests) == outage + 2


async def test_an_unknown_key_in_an_outage_is_no_verdict(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """It may be a new key: the caller is told to come back, not that its token is bad."""
    await cache.find(issuer.key.kid)
    fake_clock.advance(10)
    faulty_peer.refuse()
    with pytest.raises(KeysUnavailableError):
        await cache.find("maybe-new")


@pytest.mark.parametrize("fault", ["refuse", "reset", "hang", "garbage", "truncated"])
async def test_without_any_key_there_is_no_verdict(  # noqa: PLR0917  (fixtures)
    cache, serve, issuer, faulty_peer, fake_clock, fault
):
    """No keys at all: say when to come back, ask once a second at most, recover by itself."""
    getattr(faulty_peer, fault)()
    cache._timeout = 0.2 if fault == "hang" else 30
    with pytest.raises(KeysUnavailableError) as error:
        await cache.find(issuer.key.kid)
    assert 0 < error.value.retry_after <= 1
    asked = len(faulty_peer.requests)
    for _ in range(20):
        with pytest.raises(KeysUnavailableError):
            await cache.find(issuer.key.kid)
    assert len(faulty_peer.requests) == asked
    serve()
    cache._timeout = 30
    fake_clock.advance(1)
    assert await cache.find(issuer.key.kid)


@pytest.mark.parametrize(
    "document",
    [[], {}, {"keys": {}}, {"keys": []}, {"keys": [1, None, "x"]}, {"keys": [{"kty": "RSA"}]}, "x"],
)
async def test_a_bad_document_does_not_replace_good_keys(  # noqa: PLR0917  (fixtures)
    cache, serve, issuer, faulty_peer, fake_clock, document
):
    """A broken answer, or one without any key, is an outage and not a revocation."""
    await cache.find(issuer.key.kid)
    faulty_peer.respond(200, json=document)
    fake_clock.advance(301)
    await cache.find(issuer.key.kid)
    await refreshed(cache)
    assert len(faulty_peer.requests) == 2
    assert await cache.find(issuer.key.kid)


async def test_keys_that_must_not_verify_are_passed_over(cache, issuer, faulty_peer):
    """Symmetric, elliptic, short, private-use and unnamed keys are not taken from the set."""
    good = issuer.jwks()["keys"][0]
    bad = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
        {"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "kid": "ec"},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "ps", "alg": "PS256"},
        {**good, "kid": "short", "n": good["n"][:171]},
        {**good, "kid": "", "n": "!!"},
        {name: value for name, value in good.items() if name != "kid"},
    ]
    faulty_peer.respond(200, json={"keys": [*bad, good]})
    assert (await cache.find(good["kid"])).kid == good["kid"]
    for kid in ("oct", "ec", "enc", "ps", "short", ""):
        assert await cache.find(kid) is None


async def test_a_caller_that_goes_away_does_not_stop_the_fetch(cache, serve, issuer, faulty_peer):
    """The fetch serves all who wait."""
    faulty_peer.slow(0.05, json=issuer.jwks())
    first = asyncio.create_task(cache.find(issuer.key.kid))
    second = asyncio.create_task(cache.find(issuer.key.kid))
    await faulty_peer.wait_for_requests(1)
    first.cancel()
    assert await second
    assert len(faulty_peer.requests) == 1


async def test_all_who_miss_a_new_key_wait_for_the_refresh_that_brings_it(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """Right after a rotation many tokens with the new key come at once: none of them is refused."""
    await cache.find(issuer.key.kid)
    fake_clock.advance(10)
    issuer.rotate()
    faulty_peer.slow(0.05, json=issuer.jwks())
    first = asyncio.create_task(cache.find(issuer.key.kid))
    await faulty_peer.wait_for_requests(2)
    late = await asyncio.gather(*(cache.find(issuer.key.kid) for _ in range(10)))
    assert [key.kid for key in [await first, *late]] == [issuer.key.kid] * 11
    assert len(faulty_peer.requests) == 2


async def test_only_a_fetch_that_a_request_waits_for_is_part_of_its_trace(
    cache, serve, issuer, faulty_peer, fake_clock
):
    """Any other is part of no trace that somebody records."""
    with trace.use_span(PassedSpan(0xABC, 0x1, 1)):
        await cache.find(issuer.key.kid)
        fake_clock.advance(301)
        await cache.find(issuer.key.kid)
        await refreshed(cache)
    fake_clock.advance(10)
    await cache.find("unknown")
    waited_for, *others = [each.headers["traceparent"] for each in faulty_peer.requests]
    assert waited_for == f"00-{0xABC:032x}-{1:016x}-01"
    assert len(others) == 2
    assert all(other.endswith("-00") and f"{0xABC:032x}" not in other for other in others)
