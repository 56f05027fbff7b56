"""The clock, the issuer, the faulty peer, the servers and the settings that tests use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import urllib.request
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from fastapi import FastAPI, Request
from joserfc import jwt
from joserfc.jwk import KeySet

from chassis.clock import Clock
from chassis.settings import DatabaseSettings, ServiceSettings
from chassis.testing import FakeClock, FaultyPeer, TestIssuer


class TestFakeClock:
    """Time that a test holds."""

    async def test_it_is_a_clock(self, fake_clock):
        """It has the shape that the chassis asks for, and begins now."""
        assert isinstance(fake_clock, Clock)
        assert abs(fake_clock.now() - datetime.now(UTC)) < timedelta(seconds=60)
        assert fake_clock.now().tzinfo is UTC

    async def test_both_times_move_together(self, fake_clock):
        """Wall time and monotonic time advance alike, and never go back."""
        now, monotonic = fake_clock.now(), fake_clock.monotonic()
        fake_clock.advance(90.5)
        assert fake_clock.now() - now == timedelta(seconds=90.5)
        assert fake_clock.monotonic() - monotonic == 90.5
        with pytest.raises(ValueError, match="never goes back"):
            fake_clock.advance(-1)

    async def test_sleepers_wake_when_they_are_due(self, fake_clock):
        """Each in its turn, not before."""
        woken = []

        async def sleeper(seconds):
            await fake_clock.sleep(seconds)
            woken.append(seconds)

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (30, 10, 20)]
        await fake_clock.wait_for_sleepers(3)
        for elapsed, expected in [(9, []), (1, [10]), (25, [10, 20, 30])]:
            fake_clock.advance(elapsed)
            await fake_clock.settle()
            assert woken == expected
        await asyncio.gather(*tasks)

    async def test_a_cancelled_sleeper_is_forgotten(self, fake_clock):
        """It neither counts nor breaks the others."""
        task = asyncio.create_task(fake_clock.sleep(10))
        await fake_clock.wait_for_sleepers()
        task.cancel()
        await asyncio.wait([task])
        assert fake_clock.sleepers == 0
        fake_clock.advance(10)

    async def test_an_automatic_clock_does_not_wait(self):
        """Sleeping moves it; what was slept is noted."""
        clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC), auto=True)
        await clock.sleep(3600)
        assert clock.now() == datetime(2026, 1, 1, 1, tzinfo=UTC)
        assert clock.slept == [3600]


class TestTheIssuer:
    """Tokens and keys for tests."""

    def test_a_token_verifies_with_the_served_keys(self, token_issuer):
        """What an independent verifier needs is at `jwks_url`."""
        with urllib.request.urlopen(token_issuer.jwks_url) as response:
            keys = KeySet.import_key_set(json.load(response))
        token = jwt.decode(token_issuer.token("u7", ["a", "b"], extra=1), keys, ["RS256"])
        assert token.header["typ"] == "at+jwt"
        assert token.claims["sub"] == "u7"
        assert token.claims["scope"] == "a b"
        assert token.claims["extra"] == 1
        assert token.claims["exp"] - token.claims["iat"] == 3600

    def test_private_parts_are_not_served(self, token_issuer):
        """The JWKS holds public keys only."""
        assert set(token_issuer.jwks()["keys"][0]) == {"kty", "n", "e", "kid", "use", "alg"}

    def test_rotation_keeps_old_keys(self):
        """A new key signs; the old one still verifies."""
        issuer = TestIssuer()
        old = issuer.token()
        issuer.rotate()
        keys = KeySet.import_key_set(issuer.jwks())
        assert jwt.decode(old, keys, ["RS256"]).header["kid"] != issuer.key.kid
        assert jwt.decode(issuer.token(), keys, ["RS256"]).header["kid"] == issuer.key.kid

    async def test_it_gives_tokens_to_services(self, token_issuer):
        """The client-credentials grant, so that services under test have tokens of their own."""
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            url = f"{token_issuer.url}/v1/token"
            form = {"grant_type": "client_credentials", "scope": "events:deliver"}
            response = await client.post(url, data=form, auth=("orders", "secret"))
            assert response.status_code == 200
            keys = KeySet.import_key_set(token_issuer.jwks())
            claims = jwt.decode(response.json()["access_token"], keys, ["RS256"]).claims
            assert (claims["sub"], claims["scope"]) == ("orders", "events:deliver")
            assert (await client.post(url, data=form)).status_code == 401
            assert (await client.post(url, data={"grant_type": "x"})).status_code == 400
            assert (await client.get(f"{token_issuer.url}/nothing")).status_code == 404


class TestFaultyPeer:
    """The faults are real."""

    @pytest.fixture
    async def client(self):
        """A client of the usual kind."""
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            yield client

    async def test_it_answers_and_records(self, client, faulty_peer):
        """Requests are kept in order, in full."""
        faulty_peer.respond(201, json={"a": 1}, headers={"X-B": "c"})
        response = await client.post(f"{faulty_peer.url}/x?q=1&r=", json=[1])
        assert (response.status_code, response.json()) == (201, {"a": 1})
        assert response.headers["x-b"] == "c"
        (request,) = faulty_peer.requests
        assert (request.method, request.path) == ("POST", "/x")
        assert request.query == {"q": "1", "r": ""}
        assert request.json() == [1]

    async def test_answers_can_be_queued(self, client, faulty_peer):
        """First what was queued, then the standing answer; routes win over both."""
        faulty_peer.respond(200, json="standing")
        faulty_peer.respond(503, times=2)
        faulty_peer.on("GET", "/health", 204)
        statuses = [(await client.get(faulty_peer.url)).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        assert (await client.get(f"{faulty_peer.url}/health")).status_code == 204

    async def test_refusing_and_accepting_again(self, client, faulty_peer):
        """The port stays the same, so a peer can come back."""
        for _ in range(3):
            faulty_peer.refuse()
            with pytest.raises(httpx2.ConnectError):
                await client.get(faulty_peer.url)
            faulty_peer.accept()
            assert (await client.get(faulty_peer.url)).status_code == 200

    @pytest.mark.parametrize("fault", ["reset", "disconnect", "garbage", "truncated"])
    async def test_faults_of_the_connection(self, client, faulty_peer, fault):
        """An ordinary client sees each as a transport error."""
        getattr(faulty_peer, fault)(times=1)
        with pytest.raises(httpx2.TransportError):
            await client.get(faulty_peer.url)
        assert (await client.get(faulty_peer.url)).status_code == 200

    async def test_slow_and_hanging(self, client, faulty_peer):
        """Answers that are late, and answers that never come."""
        impatient = httpx2.Timeout(5, read=0.02)
        faulty_peer.slow(0.05, json="late")
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(faulty_peer.url, timeout=impatient)
        assert (await client.get(faulty_peer.url)).json() == "late"
        faulty_peer.hang()
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(faulty_peer.url, timeout=impatient)

    async def test_chunked_bodies_are_read(self, client, faulty_peer):
        """Streams of a client arrive whole."""

        async def body():
            for chunk in (b"one ", b"two"):
                yield chunk

        await client.post(faulty_peer.url, content=body())
        assert faulty_peer.requests[0].body == b"one two"

    async def test_two_peers_do_not_share_a_port(self):
        """Each has its own, also while it refuses."""
        async with FaultyPeer() as one, FaultyPeer() as two:
            one.refuse()
            assert one.port != two.port


def lifespan_app(log, *, fail=None):
    """Return an application that notes its start and stop, and may fail at either."""

    @asynccontextmanager
    async def lifespan(app):
        log.append("start")
        if fail == "start":
            raise RuntimeError("cannot start")
        yield {"answer": 42}
        log.append("stop")
        if fail == "stop":
            raise RuntimeError("cannot stop")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def read(request: Request) -> int:
        return request.state.answer

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken handler")

    return app


class TestServers:
    """Applications in process and on a port."""

    async def test_app_client_runs_the_lifespan(self, app_client):
        """Start before the first request, stop at the end, state in between."""
        log = []
        async with app_client(lifespan_app(log)) as client:
            assert log == ["start"]
            assert (await client.get("/")).json() == 42
        assert log == ["start", "stop"]

    @pytest.mark.parametrize("phase", ["start", "stop"])
    async def test_a_failing_lifespan_fails_the_test(self, app_client, phase):
        """The application's own exception is what the test sees."""
        with pytest.raises(RuntimeError, match=f"cannot {phase}"):
            async with app_client(lifespan_app([], fail=phase)):
                pass

    async def test_the_lifespan_ends_when_the_test_fails(self, app_client):
        """Resources are not left open by a failed assertion."""
        log = []
        with pytest.raises(KeyError):
            async with app_client(lifespan_app(log)):
                raise KeyError
        assert log == ["start", "stop"]

    async def test_unhandled_errors_raise_or_answer(self, app_client):
        """By default they fail the test with their traceback; on demand the client sees 500."""
        async with app_client(lifespan_app([])) as client:
            with pytest.raises(RuntimeError, match="broken handler"):
                await client.get("/broken")
        async with app_client(lifespan_app([]), raise_app_exceptions=False) as client:
            assert (await client.get("/broken")).status_code == 500

    async def test_serve_app_listens_on_a_real_port(self, serve_app):
        """Real uvicorn, real sockets, ended with the block."""
        log = []
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            async with serve_app(lifespan_app(log)) as url:
                assert (await client.get(url)).json() == 42
            with pytest.raises(httpx2.ConnectError):
                await client.get(url)
        assert log == ["start", "stop"]

    async def test_serve_app_leaves_no_connection_open(self, serve_app):
        """Clients come without a pause while it ends; each of them sees an end."""
        held = []

        def come(port, ended):
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    held.append(socket.create_connection(("127.0.0.1", port), timeout=60))
                    if len(held) > 100:
                        held.pop(0).close()

        for _ in range(3):
            ended = threading.Event()
            async with serve_app(lifespan_app([])) as url:
                coming = asyncio.create_task(
                    asyncio.to_thread(come, int(url.rpartition(":")[2]), ended)
                )
                while len(held) < 20:  # noqa: ASYNC110  (a thread fills it)
                    await asyncio.sleep(0.001)
            ended.set()
            await coming
            while held:
                with held.pop() as client, contextlib.suppress(ConnectionError):
                    client.settimeout(10)
                    assert client.recv(1) == b""

    async def test_serve_app_says_that_the_start_failed(self, serve_app):
        """No test runs against a server that is not there."""
        with pytest.raises(RuntimeError, match="did not start"):
            async with serve_app(lifespan_app([], fail="start")):
                pass


class TestSettings:
    """Settings for tests."""

    def test_they_fit_the_issuer_and_ignore_the_environment(
        self, make_settings, token_issuer, monkeypatch, tmp_path
    ):
        """What a developer has exported does not change a test."""
        monkeypatch.setenv("SERVICE_PORT", "1")
        monkeypatch.setenv("service_issuer", "http://elsewhere")
        (tmp_path / "service_instance").write_text("from-a-file")
        monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path))
        settings = make_settings(ServiceSettings, log_level="debug")
        assert settings.port == 8000
        assert settings.instance != "from-a-file"
        assert settings.issuer == token_issuer.issuer
        assert settings.jwks_url == token_issuer.jwks_url
        assert settings.environment == "test"
        assert settings.log_level == "debug"
        assert os.environ["SERVICE_PORT"] == "1", "put back afterwards"

    def test_a_database_is_always_the_tests_own(self, make_settings, tmp_path):
        """Never the developer's data."""
        assert str(tmp_path) in make_settings(DatabaseSettings).database_url
        chosen = make_settings(DatabaseSettings, database_url="sqlite:///x.db")
        assert chosen.database_url == "sqlite:///x.db"
