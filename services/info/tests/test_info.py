"""Who gets the answer: callers with a token, and callers whom a real auth accepts."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from auth.main import create_app as create_auth
from auth.settings import Settings as AuthSettings

EMAIL, PASSWORD = "ada@example.com", "seven wet otters hum"
ANSWER = {"info": "The answer is 42."}


def basic(email: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{email}:{password}".encode()).decode()}


@pytest.fixture
async def auth_url(
    make_settings: Callable[..., AuthSettings],
    migrated_database_url: Callable[[str], str],
    serve_app: Any,
) -> AsyncIterator[str]:
    """A real auth on a real port, with one account."""
    settings = make_settings(
        AuthSettings,
        issuer="http://auth.test",
        database_url=migrated_database_url("auth"),
        argon2_memory_kib=8,
        access_log=False,
        trusted_proxy_hops=1,
    )
    async with serve_app(create_auth(settings)) as url:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            body = {"email": EMAIL, "password": PASSWORD}
            assert (await client.post("/v1/users", json=body)).status_code == 201
        yield url


async def test_a_token_of_auth_gets_the_answer(auth_url: str, open_info: Any) -> None:
    """The whole way: sign-up, token, JWKS, answer. A tampered token does not."""
    jwks = f"{auth_url}/.well-known/jwks.json"
    async with (
        open_info(issuer="http://auth.test", auth_url=auth_url, jwks_url=jwks) as client,
        httpx2.AsyncClient(base_url=auth_url, trust_env=False, timeout=60) as auth,
    ):
        form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
        token = (await auth.post("/v1/token", data=form)).json()["access_token"]
        answer = await client.get("/info/", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()) == (200, ANSWER)
        tampered = {"Authorization": f"Bearer {token[:-6]}AAAAAA"}
        assert (await client.get("/info/", headers=tampered)).status_code == 401


async def test_what_is_no_jwt_is_judged_by_auth(auth_url: str, open_info: Any) -> None:
    """Password and API key get the answer; anything else is a 401 problem with auth's challenge."""
    async with (
        open_info(auth_url=auth_url) as client,
        httpx2.AsyncClient(base_url=auth_url, trust_env=False, timeout=60) as auth,
    ):
        form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
        token = (await auth.post("/v1/token", data=form)).json()["access_token"]
        body = {"name": "x", "scopes": ["profile"]}
        headers = {"Authorization": f"Bearer {token}"}
        key = (await auth.post("/v1/keys", json=body, headers=headers)).json()["key"]
        for good in (
            basic(EMAIL, PASSWORD),
            {"Authorization": f"Bearer {key}"},
            {"Authorization": f"ApiKey {key}"},
        ):
            answer = await client.get("/info/", headers=good)
            assert (answer.status_code, answer.json()) == (200, ANSWER)
        for bad in (
            basic(EMAIL, "a wrong password"),
            {"Authorization": "Bearer opaque"},
            {"Authorization": "Bearer slk_x_y"},
            {"Authorization": "Digest x"},
        ):
            answer = await client.get("/info/", headers=bad)
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"
            assert "Basic" in answer.headers["www-authenticate"]


async def test_the_lock_out_counts_for_the_callers_address(auth_url: str, open_info: Any) -> None:
    """One guesser does not lock the door that all callers of info share."""
    async with open_info(auth_url=auth_url) as client:
        guesser = {"X-Forwarded-For": "203.0.113.9"}
        for _ in range(6):
            headers = {**basic(EMAIL, "a wrong password"), **guesser}
            answer = await client.get("/info/", headers=headers)
            assert answer.status_code == 401
        assert int(answer.headers["retry-after"]) > 0
        owner = {**basic(EMAIL, PASSWORD), "X-Forwarded-For": "198.51.100.7"}
        assert (await client.get("/info/", headers=owner)).status_code == 200


async def test_the_slash_at_the_end_may_be_left_out(open_info: Any, token_issuer: Any) -> None:
    """Both spellings are answered here, to whom auth knows; neither is redirected."""
    async with open_info(jwks_url=token_issuer.jwks_url) as client:
        for path in ("/info", "/info/"):
            answer = await client.get(path, headers=token_issuer.authorization("u1"))
            assert (answer.status_code, answer.json()) == (200, ANSWER)
            assert (await client.get(path)).status_code == 401


async def test_without_credentials_auth_is_not_asked(open_info: Any, faulty_peer: Any) -> None:
    """401 with a challenge."""
    async with open_info(auth_url=faulty_peer.url) as client:
        answer = await client.get("/info/")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert faulty_peer.requests == []


async def test_auth_away_is_503_but_tokens_still_work(
    open_info: Any, faulty_peer: Any, token_issuer: Any
) -> None:
    """Refused, reset, hanging or failing: the problem says to try again. A JWT needs no auth."""
    async with open_info(
        auth_url=faulty_peer.url,
        jwks_url=token_issuer.jwks_url,
        breaker_failures=100,
        peer_timeout_seconds=1.0,
    ) as client:
        for fault in (
            faulty_peer.refuse,
            faulty_peer.reset,
            faulty_peer.hang,
            lambda: faulty_peer.respond(500),
            lambda: faulty_peer.respond(429),
        ):
            fault()
            answer = await client.get("/info/", headers=basic(EMAIL, PASSWORD))
            assert answer.status_code == 503, fault
            assert answer.headers["content-type"] == "application/problem+json"
            assert "retry-after" in answer.headers
            token = token_issuer.authorization("u1")
            assert (await client.get("/info/", headers=token)).json() == ANSWER


async def test_only_the_credentials_are_passed_on(open_info: Any, faulty_peer: Any) -> None:
    """As they came, with the address; no cookie, and no token of info's own."""
    async with open_info(auth_url=faulty_peer.url) as client:
        headers = {**basic(EMAIL, PASSWORD), "Cookie": "a=b", "X-Forwarded-For": "203.0.113.9"}
        assert (await client.get("/info/", headers=headers)).json() == ANSWER
    (request,) = faulty_peer.requests
    assert (request.method, request.path) == ("POST", "/login/")
    assert request.headers["authorization"] == headers["Authorization"]
    assert request.headers["x-forwarded-for"] == "203.0.113.9"
    assert "cookie" not in request.headers
