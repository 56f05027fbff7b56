"""Who opens a stream, by which credentials, and when it ends with them."""

import time

import pytest
from websockets.exceptions import InvalidStatus

from chassis.testing import FakeClock


@pytest.fixture
def ticket(replica):
    """A function that buys a ticket."""

    async def buy(**claims):
        headers = {"Authorization": f"Bearer {replica.token(**claims)}"}
        answer = await replica.http.post("/v1/stream/tickets", headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["expires_in"] == 30
        return answer.json()["ticket"]

    return buy


async def refusal(opening):
    """Return the answer to a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with opening:
            pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response


async def test_a_token_in_the_header_the_subprotocol_or_the_first_message(start):
    """All three open the same stream."""
    async with start() as replica:
        token = replica.token()
        async with replica.open(token=token) as client:
            assert (await client.next())["expires_at"] > time.time()
        offered = ["slipway.v1", f"bearer.{token}"]
        async with replica.open(headers={}, subprotocols=offered) as client:
            assert client.socket.subprotocol == "slipway.v1"
            assert (await client.next())["type"] == "welcome"
        async with replica.open(headers={}) as client:
            await client.say(type="auth", token=token)
            assert (await client.next())["type"] == "welcome"
            await client.subscribe("orders")


async def test_a_bad_token_is_refused_at_the_handshake(start):
    """401 for a token that is no good, 403 for one without the scope; never an open stream."""
    async with start() as replica:
        refused = await refusal(replica.open(token=replica.token(expires_in=-60)))
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        offered = ["slipway.v1", "bearer.nonsense"]
        refused = await refusal(replica.open(headers={}, subprotocols=offered))
        assert refused.status_code == 401
        refused = await refusal(replica.open(token=replica.token(scopes="orders:read")))
        assert refused.status_code == 403
        metrics = replica.streams.metrics.refused
        assert metrics["credentials"]._value.get() == 2
        assert metrics["scope"]._value.get() == 1


@pytest.mark.parametrize(
    "first", ['{"type":"subscribe","topics":["orders"]}', "nonsense", '{"type":"auth","token":"x"}']
)
async def test_the_first_message_must_be_a_token(start, first):
    """Anything else closes 4401."""
    async with start() as replica, replica.open(headers={}) as client:
        await client.socket.send(first)
        code, reason = await client.closed()
        assert code == 4401
        assert "token" in reason


async def test_who_says_nothing_is_sent_away(start):
    """4401 after the time for the first message."""
    async with start(first_message_seconds=0.1) as replica, replica.open(headers={}) as client:
        assert (await client.closed())[0] == 4401


async def test_a_ticket_opens_one_stream(replica, ticket):
    """With the rights of the token that bought it; the second try is 401."""
    bought = await ticket(user="u7")
    async with replica.open(headers={}, query=f"?ticket={bought}") as client:
        assert (await client.next())["type"] == "welcome"
        await client.subscribe("orders")
        assert "orders/u7" in replica.streams.hub._wanted
    refused = await refusal(replica.open(headers={}, query=f"?ticket={bought}"))
    assert refused.status_code == 401


async def test_a_ticket_needs_the_scope_and_a_token(start):
    """403 and 401."""
    async with start() as replica:
        answer = await replica.http.post("/v1/stream/tickets")
        assert answer.status_code == 401
        headers = {"Authorization": f"Bearer {replica.token(scopes='profile')}"}
        assert (await replica.http.post("/v1/stream/tickets", headers=headers)).status_code == 403


async def test_a_ticket_is_worthless_after_its_time(start, token_issuer):
    """31 seconds later it opens nothing."""
    clock = FakeClock()
    async with start(clock=clock) as replica:
        headers = {"Authorization": f"Bearer {replica.token()}"}
        bought = (await replica.http.post("/v1/stream/tickets", headers=headers)).json()["ticket"]
        clock.advance(31)
        refused = await refusal(replica.open(headers={}, query=f"?ticket={bought}"))
        assert refused.status_code == 401


async def test_the_stream_ends_with_the_token(start):
    """It is warned a minute before, and closed with 4401."""
    clock = FakeClock()
    async with (
        start(clock=clock) as replica,
        replica.open(token=replica.token(expires_in=300)) as client,
    ):
        await client.subscribe("orders")
        clock.advance(250)
        assert 0 < (await client.until("expiring"))["seconds"] <= 60
        clock.advance(60)
        assert await client.closed() == (4401, "the access token is expired")


async def test_a_fresh_token_keeps_the_stream_open(start):
    """One of the same caller; that of another is refused and changes nothing."""
    clock = FakeClock()
    async with (
        start(clock=clock) as replica,
        replica.open(token=replica.token(expires_in=300)) as client,
    ):
        await client.subscribe("sensors/a")
        await client.say(type="auth", token=replica.token("u2", expires_in=3000))
        assert (await client.until("error"))["code"] == "bad-token"
        await client.say(type="auth", token=replica.token(expires_in=3000))
        assert (await client.until("authenticated"))["expires_at"] > time.time() + 2000
        clock.advance(400)
        await client.say(type="ping")
        await client.until("pong")
        await replica.measure("a", 1)
        assert await client.values(1) == [1]


async def test_streams_of_a_user_are_limited(start):
    """429 at the handshake, 1008 after it; others, and places that became free, are not touched."""
    async with start(connections_per_user=2) as replica:
        token = replica.token()
        async with replica.open(token=token) as one, replica.open(token=token):
            await one.next()
            refused = await refusal(replica.open(token=token))
            assert refused.status_code == 429
            assert refused.headers["retry-after"]
            async with replica.open(headers={}) as late:
                await late.say(type="auth", token=token)
                assert (await late.closed())[0] == 1008
            async with replica.open("u2") as other:
                assert (await other.next())["type"] == "welcome"
        async with replica.open(token=token) as again:
            assert (await again.next())["type"] == "welcome"


async def test_a_full_process_says_so(start):
    """503 with Retry-After, for WebSockets and server-sent events; readiness is not touched."""
    async with start(connections=1) as replica, replica.open() as client:
        await client.next()
        refused = await refusal(replica.open("u2"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        headers = {"Authorization": f"Bearer {replica.token('u2')}"}
        answer = await replica.http.get("/v1/events", params={"topics": "orders"}, headers=headers)
        assert answer.status_code == 503
        assert (await replica.http.get("/readyz")).status_code == 200


async def test_who_waits_to_say_who_it_is_takes_no_place_of_others(start):
    """However many say nothing, who has a token gets in; they are bounded themselves."""
    async with (
        start(connections=20, first_message_seconds=60) as replica,
        replica.open(headers={}) as one,
        replica.open(headers={}),
    ):
        refused = await refusal(replica.open(headers={}))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert replica.streams.metrics.connections["websocket"]._value.get() == 0
        async with replica.open() as client:
            assert (await client.next())["type"] == "welcome"
        await one.say(type="auth", token=replica.token("u2"))
        assert (await one.next())["type"] == "welcome"
        async with replica.open(headers={}) as another:
            await another.say(type="auth", token=replica.token("u3"))
            assert (await another.next())["type"] == "welcome"


async def test_who_said_who_it_is_still_needs_a_place(start):
    """1013 when the others have them all."""
    async with (
        start(connections=1, first_message_seconds=60) as replica,
        replica.open(headers={}) as late,
        replica.open() as client,
    ):
        await client.next()
        await late.say(type="auth", token=replica.token("u2"))
        assert (await late.closed())[0] == 1013
