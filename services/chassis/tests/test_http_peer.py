"""Calls to a peer: what is sent, what is retried, when the breaker opens, what errors become."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from chassis import context
from chassis.clock import SystemClock
from chassis.http import DeadlineExceeded, PeerFault, PeerUnavailable
from chassis.http.breaker import BreakerState
from chassis.http.deadline import Deadline, reset_deadline, set_deadline
from chassis.http.errors import PeerError, peer_problem
from chassis.http.metrics import HttpClientMetrics
from chassis.http.peer import Peer
from chassis.http.transport import AiohttpTransport
from chassis.settings import ServiceSettings
from chassis.testing import FakeClock


class Tokens:
    """A source of numbered tokens."""

    def __init__(self):
        self.number = 1

    async def get(self):
        """Return the token of this moment."""
        return f"token-{self.number}"

    def invalidate(self, token):
        """Go on to the next token."""
        assert token == f"token-{self.number}"
        self.number += 1


@pytest.fixture
def clock():
    """Time that passes only in waits between attempts."""
    return FakeClock(auto=True)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
async def make_peer(make_settings, faulty_peer, clock, registry):
    transport = AiohttpTransport()

    def make(**options):
        chosen = {"tokens": Tokens(), "clock": clock, **options.pop("peer", {})}
        defaults = {"service_name": "orders", "peer_connect_timeout_seconds": 30}
        settings = make_settings(ServiceSettings, **{**defaults, **options})
        return Peer(
            "items",
            faulty_peer.url,
            settings=settings,
            transport=transport,
            metrics=HttpClientMetrics(registry),
            rng=random.Random(1),
            **chosen,
        )

    yield make
    await transport.aclose()


@pytest.fixture
def peer(make_peer):
    return make_peer()


@pytest.fixture
def deadline(clock):
    """A context manager that gives the calls inside it a budget in seconds."""

    @contextmanager
    def give(seconds):
        token = set_deadline(Deadline.after(seconds, clock))
        yield
        reset_deadline(token)

    return give


def sample(registry, name, **labels):
    return registry.get_sample_value(name, {"peer": "items", **labels})


# -- what is sent ---------------------------------------------------------------------------------


async def test_a_call_as_the_peer_sees_it(peer, faulty_peer):
    """Method, path, query and body arrive, with a token, a name and no wish for compression."""
    response = await peer.post("/v1/check?x=1", json={"n": 1}, headers={"X-Extra": "1"})
    assert response.status_code == 200
    request = faulty_peer.requests[0]
    assert (request.method, request.target, request.json()) == ("POST", "/v1/check?x=1", {"n": 1})
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["user-agent"].startswith("slipway-orders/")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-extra"] == "1"
    assert request.headers["x-request-timeout-ms"] == "5000"


async def test_query_form_and_raw_bodies(peer, faulty_peer):
    """`params`, `data` and `content` do what httpx users expect."""
    await peer.get("/a", params={"q": "a b&c", "n": 2})
    await peer.post("/b", data={"grant_type": "x y"})
    await peer.put("/c", content=b"raw")
    first, second, third = faulty_peer.requests
    assert first.query == {"q": "a b&c", "n": "2"}
    assert second.body == b"grant_type=x+y"
    assert second.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (third.method, third.body) == ("PUT", b"raw")


@pytest.mark.parametrize("path", ["items", "//evil.test/", "http://evil.test/", ""])
async def test_a_path_cannot_name_another_host(peer, faulty_peer, path):
    """Only absolute paths of this peer are called."""
    with pytest.raises(ValueError, match="one slash"):
        await peer.get(path)
    assert faulty_peer.requests == []


async def test_no_token_when_none_is_wanted_or_another_is_given(peer, faulty_peer):
    """`auth=False` sends none; a given Authorization is kept."""
    await peer.get("/", auth=False)
    await peer.get("/", headers={"authorization": "Basic eA=="})
    assert "authorization" not in faulty_peer.requests[0].headers
    assert faulty_peer.requests[1].headers["authorization"] == "Basic eA=="


async def test_the_request_id_goes_along(peer, faulty_peer):
    """The id of the request being served names the call, too."""

    class Current:
        request_id = "req-7"
        trace_id = "0" * 32

    token = context.current.set(Current())
    await peer.get("/")
    context.current.reset(token)
    assert faulty_peer.requests[0].headers["x-request-id"] == "req-7"


async def test_a_refused_token_is_replaced_once(peer, faulty_peer):
    """401 with our own token: get a new one and try again, for any method; not for ever."""
    faulty_peer.respond(401, json={}, times=1)
    assert (await peer.post("/")).status_code == 200
    assert [r.headers["authorization"] for r in faulty_peer.requests] == [
        "Bearer token-1",
        "Bearer token-2",
    ]
    faulty_peer.respond(401, json={})
    assert (await peer.post("/")).status_code == 401
    assert len(faulty_peer.requests) == 4


# -- answers and retries --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 409, 422])
async def test_answers_below_500_are_the_callers(make_peer, faulty_peer, status):
    """Client errors are answers: not raised, not retried, not counted against the peer."""
    peer = make_peer(peer={"tokens": None})
    faulty_peer.respond(status)
    for _ in range(6):
        assert (await peer.get("/")).status_code == status
    assert len(faulty_peer.requests) == 6
    assert peer.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_passing_faults_are_retried(peer, faulty_peer, clock, registry, status):
    """Two retries with jitter mend two bad answers of an idempotent call."""
    faulty_peer.respond(status, times=2)
    assert (await peer.get("/")).status_code == 200
    assert len(faulty_peer.requests) == 3
    assert len(clock.slept) == 2
    assert clock.slept[0] <= 0.05
    assert clock.slept[1] <= 0.1
    assert sample(registry, "http_client_retries_total") == 2


@pytest.mark.parametrize("status", [500, 501, 505])
async def test_other_server_errors_are_not_retried(peer, faulty_peer, status):
    """A bug does not go away by asking again."""
    faulty_peer.respond(status)
    with pytest.raises(PeerFault) as fault:
        await peer.get("/")
    assert (fault.value.peer, fault.value.status) == ("items", status)
    assert len(faulty_peer.requests) == 1


async def test_calls_that_are_not_idempotent_are_sent_once(peer, faulty_peer):
    """A POST is not repeated, whatever happens to it."""
    faulty_peer.respond(503, headers={"Retry-After": "1"})
    with pytest.raises(PeerFault) as fault:
        await peer.post("/")
    assert fault.value.retry_after == 1
    faulty_peer.reset()
    with pytest.raises(PeerUnavailable):
        await peer.post("/")
    assert len(faulty_peer.requests) == 2


async def test_the_caller_may_know_better(peer, faulty_peer):
    """`idempotent=True` lets a POST be repeated; False keeps a GET from it."""
    faulty_peer.respond(503, times=1)
    assert (await peer.post("/", idempotent=True)).status_code == 200
    faulty_peer.respond(503, times=1)
    with pytest.raises(PeerFault):
        await peer.get("/", idempotent=False)


async def test_retries_end(peer, faulty_peer):
    """After two retries the last error is raised."""
    faulty_peer.respond(503)
    with pytest.raises(PeerFault):
        await peer.get("/")
    assert len(faulty_peer.requests) == 3


async def test_retry_after_is_honoured(peer, faulty_peer, clock):
    """The wait is at least what the peer asked for."""
    faulty_peer.respond(503, headers={"Retry-After": "2"}, times=1)
    await peer.get("/")
    assert clock.slept == [2]


async def test_a_retry_after_beyond_the_budget_is_not_waited_for(
    peer, faulty_peer, clock, deadline
):
    """When the peer asks for more time than the caller has, the error is raised at once."""
    faulty_peer.respond(503, headers={"Retry-After": "2"})
    with deadline(1.5), pytest.raises(PeerFault) as fault:
        await peer.get("/")
    assert fault.value.retry_after == 2
    assert clock.slept == []


async def test_the_retry_budget_stops_a_storm(make_peer, faulty_peer, registry):
    """When everything fails, retries stay at a fifth of the calls and the floor of three."""
    peer = make_peer(breaker_failures=10_000)
    faulty_peer.respond(503)
    for _ in range(50):
        with pytest.raises(PeerFault):
            await peer.get("/")
    retries = sample(registry, "http_client_retries_total")
    assert 10 <= retries <= 14
    assert len(faulty_peer.requests) == 50 + retries


async def test_refused_connections_are_retried_then_raised(peer, faulty_peer, registry):
    """No listener: two retries, then PeerUnavailable."""
    faulty_peer.refuse()
    with pytest.raises(PeerUnavailable):
        await peer.get("/")
    count = sample(registry, "http_client_requests_total", method="GET", status="connect")
    assert count == 3


async def test_an_idle_connection_that_was_closed_is_replaced(peer, faulty_peer, clock, registry):
    """The server closed a kept connection: the call goes again at once; nobody is blamed."""
    await peer.get("/")
    faulty_peer.disconnect(times=1)
    assert (await peer.get("/")).status_code == 200
    assert clock.slept == []
    assert sample(registry, "http_client_requests_total", method="GET", status="reset") == 1


async def test_a_peer_that_only_resets(peer, faulty_peer):
    """Resets are retried within the limit, then PeerUnavailable."""
    faulty_peer.reset()
    with pytest.raises(PeerUnavailable):
        await peer.get("/")
    assert len(faulty_peer.requests) == 4  # the first, the free one, two retries


@pytest.mark.parametrize("fault", ["garbage", "truncated"])
async def test_nonsense_is_unavailable(peer, faulty_peer, fault):
    """An answer that cannot be read is no answer, and it is not asked for again."""
    getattr(faulty_peer, fault)()
    with pytest.raises(PeerUnavailable):
        await peer.get("/")
    assert len(faulty_peer.requests) == 1


async def test_a_slow_peer_times_out_and_is_not_asked_again(peer, faulty_peer):
    """A timeout of the answer is not retried: it would only add load."""
    faulty_peer.hang()
    with pytest.raises(PeerUnavailable, match="no answer within"):
        await peer.get("/", timeout=0.05)
    assert len(faulty_peer.requests) == 1


# -- deadlines ------------------------------------------------------------------------------------


async def test_the_remaining_budget_is_sent_on(peer, faulty_peer, clock, deadline):
    """The peer learns how long the caller still waits."""
    with deadline(2):
        clock.advance(0.5)
        await peer.get("/")
    assert faulty_peer.requests[0].headers["x-request-timeout-ms"] == "1500"


async def test_a_call_without_budget_is_not_sent(peer, faulty_peer, clock, deadline, registry):
    """No time left: DeadlineExceeded, and the peer sees nothing."""
    with deadline(1):
        clock.advance(1)
        with pytest.raises(DeadlineExceeded) as exceeded:
            await peer.get("/")
    assert not exceeded.value.sent
    assert faulty_peer.requests == []
    assert sample(registry, "http_client_requests_total", method="GET", status="deadline") == 1


async def test_a_deadline_ends_a_call(peer, faulty_peer, deadline):
    """The budget bounds the wait for an answer."""
    faulty_peer.hang()
    with deadline(0.05), pytest.raises(DeadlineExceeded) as exceeded:
        await peer.get("/")
    assert exceeded.value.sent


async def test_tiny_deadlines_cannot_open_the_breaker(peer, faulty_peer, clock, deadline):
    """A client that gives no time does no harm to others: such calls say nothing of the peer."""
    faulty_peer.hang()
    for _ in range(10):
        with deadline(0.01), pytest.raises(DeadlineExceeded):
            await peer.get("/")
    assert peer.breaker.state is BreakerState.CLOSED


async def test_a_deadline_that_leaves_the_usual_time_counts(peer, faulty_peer, deadline):
    """A peer that had more than half of its usual time and gave no answer has failed."""
    faulty_peer.hang()
    for _ in range(5):
        with deadline(0.04), pytest.raises(DeadlineExceeded):
            await peer.get("/", timeout=0.05)
    assert peer.breaker.state is BreakerState.OPEN


# -- the breaker ----------------------------------------------------------------------------------


async def test_the_breaker_opens_probes_and_closes(peer, faulty_peer, clock, registry):
    """Five timeouts open it, calls are refused unsent, after 60 s one probe closes it."""
    faulty_peer.hang()
    for _ in range(5):
        with pytest.raises(PeerUnavailable):
            await peer.get("/", timeout=0.1)
    assert sample(registry, "circuit_breaker_state") == 2
    with pytest.raises(PeerUnavailable) as refused:
        await peer.get("/")
    assert refused.value.retry_after == pytest.approx(60, abs=1)
    assert len(faulty_peer.requests) == 5
    assert sample(registry, "http_client_requests_total", method="GET", status="open") == 1
    clock.advance(60)
    faulty_peer.slow(0.05)
    probe = asyncio.create_task(peer.get("/"))
    await faulty_peer.wait_for_requests(6)
    assert sample(registry, "circuit_breaker_state") == 1
    with pytest.raises(PeerUnavailable):
        await peer.get("/")
    assert (await probe).status_code == 200
    assert sample(registry, "circuit_breaker_state") == 0
    assert (await peer.get("/")).status_code == 200


async def test_a_cancelled_probe_does_not_wedge_the_breaker(peer, faulty_peer, clock):
    """The client of the probe goes away; the next call probes instead."""
    faulty_peer.respond(500)
    for _ in range(5):
        with pytest.raises(PeerFault):
            await peer.get("/")
    clock.advance(60)
    faulty_peer.hang()
    probe = asyncio.create_task(peer.get("/"))
    await faulty_peer.wait_for_requests(6)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    faulty_peer.respond(200, json={})
    assert (await peer.get("/")).status_code == 200
    assert peer.breaker.state is BreakerState.CLOSED


async def test_cancelled_calls_say_nothing_of_the_peer(peer, faulty_peer, registry):
    """Clients that go away do not open the breaker."""
    faulty_peer.hang()
    for number in range(1, 7):
        call = asyncio.create_task(peer.get("/"))
        await faulty_peer.wait_for_requests(number)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert peer.breaker.state is BreakerState.CLOSED
    assert sample(registry, "http_client_requests_total", method="GET", status="cancelled") == 6


async def test_a_busy_process_does_not_blame_the_peer(make_peer, faulty_peer):
    """When the event loop was blocked, a timeout says nothing of the peer."""
    peer = make_peer(peer={"clock": SystemClock()})
    faulty_peer.hang()
    for number in range(1, 7):
        call = asyncio.create_task(peer.post("/", timeout=0.2))
        await faulty_peer.wait_for_requests(number)
        time.sleep(0.35)  # noqa: ASYNC251  (blocking the loop is the point)
        with pytest.raises(PeerUnavailable):
            await call
    assert peer.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("status", "opens"), [(500, True), (503, True), (501, False), (429, False)]
)
async def test_which_answers_count_as_failures(peer, faulty_peer, status, opens):
    """Server errors count, except 501, which says that the peer works but cannot do this."""
    faulty_peer.respond(status)
    for _ in range(5):
        with pytest.raises(PeerError):
            await peer.get("/", idempotent=False)
    assert (peer.breaker.state is BreakerState.OPEN) is opens


# -- metrics and problems -------------------------------------------------------------------------


async def test_metrics_have_no_paths(peer, faulty_peer, registry):
    """Each attempt is counted and timed by peer, method and status."""
    await peer.get("/v1/items/1")
    await peer.get("/v1/items/2")
    assert sample(registry, "http_client_requests_total", method="GET", status="200") == 2
    assert sample(registry, "http_client_request_duration_seconds_count", method="GET") == 2
    labels = {name for metric in registry.collect() for s in metric.samples for name in s.labels}
    assert labels == {"peer", "method", "status", "le"}


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (PeerUnavailable("items", "gone", retry_after=29.2), 503, "30"),
        (PeerUnavailable("items", "gone"), 503, "1"),
        (PeerFault("items", 500), 503, "1"),
        (PeerFault("items", 429, retry_after=7), 503, "7"),
        (DeadlineExceeded("items", sent=False), 504, None),
    ],
)
def test_errors_as_problems(error, status, retry_after):
    """What a client is told: 503 and when to come back, or 504."""
    problem = peer_problem(error)
    assert problem.status == status
    assert problem.headers.get("Retry-After") == retry_after
    assert problem.type.startswith("urn:slipway:problem:")


async def test_many_calls_at_once_each_get_their_own_answer(make_peer, faulty_peer):
    """A hundred concurrent calls do not mix up their answers."""
    peer = make_peer(peer_timeout_seconds=60)
    faulty_peer.on("GET", "/n", handler=lambda request: (200, request.query["i"]))
    calls = (peer.get("/n", params={"i": str(i)}) for i in range(100))
    answers = await asyncio.gather(*calls)
    assert [answer.json() for answer in answers] == [str(i) for i in range(100)]
