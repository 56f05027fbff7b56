"""A service's own tokens: fetched once, refreshed early, used to the end while auth is away."""

from __future__ import annotations

import asyncio
from base64 import b64decode

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from chassis.http import PeerUnavailable
from chassis.http.deadline import Deadline, reset_deadline, set_deadline
from chassis.http.peers import Peers
from chassis.security.tokens import MissingClientSecretError
from chassis.settings import ServiceSettings, settings_config


class OrdersSettings(ServiceSettings):
    """Settings of a service with a name of its own."""

    model_config = settings_config("orders")
    service_name: str = "orders"


@pytest.fixture
def auth(faulty_peer):
    """Auth, as far as the token endpoint goes; its tokens are numbered."""
    numbers = iter(range(1, 1000))

    def answer(request):
        return 200, {
            "access_token": f"token-{next(numbers)}",
            "token_type": "Bearer",
            "expires_in": 100,
        }

    faulty_peer.issue = lambda: faulty_peer.on("POST", "/v1/token", handler=answer)
    faulty_peer.issue()
    return faulty_peer


@pytest.fixture
async def peers(make_settings, auth, fake_clock):
    settings = make_settings(
        OrdersSettings,
        auth_url=auth.url,
        client_secret="s3cret:%&+",
        peer_retries=0,
        breaker_failures=1000,
        peer_timeout_seconds=20,
        peer_connect_timeout_seconds=20,
    )
    peers = Peers(settings, clock=fake_clock, registry=CollectorRegistry())
    yield peers
    await peers.close()


@pytest.fixture
def tokens(peers):
    return peers.tokens


def broken(auth):
    """Take the token endpoint away."""
    auth.on("POST", "/v1/token", 503, json={})


async def refreshed(tokens):
    while tokens._refresh is not None:
        await asyncio.wait([tokens._refresh])
        await asyncio.sleep(0)


async def test_the_request_is_a_client_credentials_grant(tokens, auth):
    """A form, with the client's credentials in HTTP Basic, encoded as RFC 6749 asks."""
    assert await tokens.get() == "token-1"
    request = auth.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/token")
    assert request.body == b"grant_type=client_credentials"
    scheme, _, credentials = request.headers["authorization"].partition(" ")
    assert (scheme, b64decode(credentials)) == ("Basic", b"orders:s3cret%3A%25%26%2B")


async def test_one_fetch_serves_everybody(tokens, auth):
    """Fifty calls at the start ask auth once."""
    assert await asyncio.gather(*(tokens.get() for _ in range(50))) == ["token-1"] * 50
    assert len(auth.requests) == 1


async def test_a_token_is_refreshed_before_it_expires(tokens, auth, fake_clock):
    """After 80 % of its life a new one is fetched beside the calls, which do not wait."""
    await tokens.get()
    fake_clock.advance(79)
    assert await tokens.get() == "token-1"
    assert len(auth.requests) == 1
    fake_clock.advance(1)
    assert await tokens.get() == "token-1"
    await refreshed(tokens)
    assert await tokens.get() == "token-2"
    assert len(auth.requests) == 2


async def test_an_outage_of_auth_does_not_stop_calls(tokens, auth, fake_clock):
    """A valid token is used to its end, while auth is asked again and again, at a bounded rate."""
    await tokens.get()
    broken(auth)
    fake_clock.advance(80)
    for _ in range(17):
        assert await tokens.get() == "token-1"
        await refreshed(tokens)
        fake_clock.advance(1)
    assert len(auth.requests) - 1 == 5, "after 0, 1, 3, 7 and 15 seconds"
    fake_clock.advance(1)
    with pytest.raises(PeerUnavailable, match="auth"):
        await tokens.get()


async def test_it_recovers_when_auth_returns(tokens, auth, fake_clock):
    """Failures are remembered for half a minute at most."""
    broken(auth)
    for _ in range(10):
        with pytest.raises(PeerUnavailable) as error:
            await tokens.get()
        assert 1 <= error.value.retry_after <= 30
        fake_clock.advance(30)
    auth.issue()
    assert await tokens.get() == "token-1"


async def test_failures_are_not_asked_for_again_at_once(tokens, auth):
    """While auth is away, calls fail fast instead of queueing at auth."""
    broken(auth)
    for _ in range(20):
        with pytest.raises(PeerUnavailable):
            await tokens.get()
    assert len(auth.requests) == 1


@pytest.mark.parametrize("fault", ["refuse", "reset", "hang", "garbage", "truncated"])
async def test_every_kind_of_outage_is_unavailable(peers, auth, fault):
    """However auth fails, the caller of a peer sees PeerUnavailable of auth."""
    auth._routes.clear()
    getattr(auth, fault)()
    if fault == "hang":
        impatient = peers._settings.model_copy(update={"peer_timeout_seconds": 0.2})
        peers.get("auth")._settings = impatient
    with pytest.raises(PeerUnavailable) as error:
        await peers.tokens.get()
    assert error.value.peer == "auth"


async def test_a_refused_client_is_told_by_the_name_of_the_setting(tokens, auth):
    """401 from auth is a wrong secret, not an outage: the message names what to check."""
    auth.on("POST", "/v1/token", 401, json={"error": "invalid_client"})
    with pytest.raises(PeerUnavailable, match=r"orders with 401; check ORDERS_CLIENT_SECRET"):
        await tokens.get()


@pytest.mark.parametrize("answer", [[], {}, "x", None, {"access_token": 7}, {"access_token": ""}])
async def test_an_answer_without_a_token(tokens, auth, answer):
    """A broken answer is no token."""
    auth.on("POST", "/v1/token", 200, json=answer)
    with pytest.raises(PeerUnavailable):
        await tokens.get()


@pytest.mark.parametrize("lifetime", [None, "soon", -1, 0])
async def test_a_strange_lifetime_counts_as_short(tokens, auth, fake_clock, lifetime):
    """A token without a usable `expires_in` is renewed within minutes."""
    auth.on("POST", "/v1/token", json={"access_token": "t", "expires_in": lifetime})
    await tokens.get()
    fake_clock.advance(300)
    await tokens.get()
    assert len(auth.requests) == 2


async def test_an_invalidated_token_is_not_used_again(tokens, auth):
    """A peer refused it: the next call gets a new one; a late refusal of the old one is ignored."""
    first = await tokens.get()
    tokens.invalidate(first)
    assert await tokens.get() == "token-2"
    tokens.invalidate(first)
    assert await tokens.get() == "token-2"


async def test_a_caller_that_goes_away_does_not_stop_the_fetch(tokens, auth):
    """The fetch serves all who wait."""
    first = asyncio.create_task(tokens.get())
    second = asyncio.create_task(tokens.get())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "token-1"
    assert len(auth.requests) == 1


async def test_the_fetch_does_not_run_under_the_callers_deadline(tokens, auth, fake_clock):
    """A caller with little time left does not shorten the fetch for the others."""
    token = set_deadline(Deadline.after(0.05, fake_clock))
    await tokens.get()
    reset_deadline(token)
    assert auth.requests[0].headers["x-request-timeout-ms"] == "20000"


async def test_only_a_fetch_that_a_request_waits_for_is_part_of_its_trace(
    make_settings, auth, fake_clock
):
    """One outside of any request, or in the background, begins no trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = make_settings(OrdersSettings, auth_url=auth.url, client_secret="s3cret:%&+")
    peers = Peers(
        settings, clock=fake_clock, registry=CollectorRegistry(), tracer_provider=provider
    )
    tokens = peers.tokens
    first = await tokens.get()
    assert exporter.get_finished_spans() == ()
    assert auth.requests[0].headers["traceparent"].endswith("-00")
    with provider.get_tracer("test").start_as_current_span("request") as request:
        fake_clock.advance(81)
        assert await tokens.get() == first, "refreshed beside the request"
        await asyncio.wait([tokens._refresh])
        assert exporter.get_finished_spans() == ()
        tokens.invalidate(await tokens.get())
        await tokens.get()
        [span] = exporter.get_finished_spans()
    assert span.parent.span_id == request.get_span_context().span_id
    assert len(auth.requests) == 3
    await peers.close()
    provider.shutdown()


async def test_without_a_secret_the_setting_is_named(make_settings, auth, fake_clock):
    """A forgotten secret is one clear line; calls that need no token still go."""
    settings = make_settings(OrdersSettings, auth_url=auth.url, client_secret=None)
    peers = Peers(settings, clock=fake_clock, registry=CollectorRegistry())
    items = peers.get("items", auth.url)
    with pytest.raises(MissingClientSecretError, match="ORDERS_CLIENT_SECRET is not set"):
        await items.get("/v1/items")
    assert (await items.get("/v1/items", auth=False)).status_code == 200
    assert [request.path for request in auth.requests] == ["/v1/items"]
    await peers.close()


async def test_tokens_go_out_with_calls(peers, auth):
    """A call to a peer carries the service's token; auth itself is asked without one."""
    await peers.get("items", auth.url).get("/v1/items")
    ask, call = auth.requests
    assert ask.headers["authorization"].startswith("Basic ")
    assert call.headers["authorization"] == "Bearer token-1"
