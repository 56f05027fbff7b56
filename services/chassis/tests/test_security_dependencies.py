"""Who may call: 401, 403 and 503 as RFC 6750 and RFC 9457 have them, in a real application."""

from typing import Annotated

import pytest
from fastapi import APIRouter

from chassis.app import create_app
from chassis.http import DeadlineExceeded, PeerUnavailable
from chassis.runtime import RuntimeDep
from chassis.security import Caller, MaybeCaller, Principal, requires
from chassis.settings import ServiceSettings


def build(settings):
    router = APIRouter()

    @router.get("/who")
    async def who(caller: Caller) -> str:
        return caller.subject

    @router.get("/maybe")
    async def maybe(caller: MaybeCaller) -> str | None:
        return caller and caller.subject

    @router.put("/items")
    async def write(caller: Annotated[Principal, requires("items:write")]) -> str:
        return caller.subject

    @router.put("/both")
    async def both(caller: Annotated[Principal, requires("items:write", "stock:write")]) -> str:
        return caller.subject

    @router.get("/guarded", dependencies=[requires("profile")])
    async def guarded() -> str:
        return "in"

    @router.get("/peer")
    async def peer(runtime: RuntimeDep) -> None:
        raise PeerUnavailable("items", "secret address", retry_after=4.2)

    @router.get("/late")
    async def late() -> None:
        raise DeadlineExceeded("items", sent=True)

    return create_app(settings, title="Test", description="Test.", routers=[router])


@pytest.fixture
async def client(make_settings, app_client):
    async with app_client(build(make_settings(ServiceSettings))) as client:
        yield client


def challenge(response):
    return response.headers["www-authenticate"]


async def test_a_valid_token_lets_in(client, token_issuer):
    """The handler gets the principal."""
    headers = token_issuer.authorization("user-7", "items:write")
    assert (await client.get("/who", headers=headers)).json() == "user-7"
    assert (await client.get("/maybe", headers=headers)).json() == "user-7"
    assert (await client.put("/items", headers=headers)).json() == "user-7"


@pytest.mark.parametrize("header", [None, "Basic dTpw", "Token abc", ""])
async def test_without_a_token_the_answer_says_only_that_one_is_needed(client, header):
    """401 with a bare challenge: no error code, because there was no token to be wrong."""
    headers = {} if header is None else {"Authorization": header}
    response = await client.get("/who", headers=headers)
    assert response.status_code == 401
    assert challenge(response) == 'Bearer realm="slipway"'
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 401
    assert (await client.get("/maybe", headers=headers)).json() is None


@pytest.mark.parametrize("token", ["", "opaque-0815", "a.b.c", "é", "x" * 9000])
async def test_a_bad_token_is_told_so(client, token):
    """401 with invalid_token and a reason, on optional routes, too."""
    for path in ("/who", "/maybe"):
        header = f"Bearer {token}".encode("latin-1")
        response = await client.get(path, headers=[(b"Authorization", header)])
        assert response.status_code == 401
        assert 'Bearer realm="slipway", error="invalid_token", error_desc' in challenge(response)
        assert response.json()["type"] == "urn:slipway:problem:invalid-token"
        assert not token or token not in response.json()["detail"]


async def test_an_expired_token_names_the_reason(client, token_issuer):
    """The client learns that it should get a new one."""
    headers = token_issuer.authorization(expires_in=-60)
    response = await client.get("/who", headers=headers)
    assert response.status_code == 401
    assert 'error_description="the token is expired"' in challenge(response)


async def test_a_missing_scope_is_named(client, token_issuer):
    """403 with insufficient_scope and the scopes needed; the missing one in the detail."""
    headers = token_issuer.authorization("u1", "items:write profile")
    response = await client.put("/both", headers=headers)
    assert response.status_code == 403
    assert challenge(response) == (
        'Bearer realm="slipway", error="insufficient_scope", scope="items:write stock:write"'
    )
    assert "stock:write" in response.json()["detail"]
    assert "items:write" not in response.json()["detail"]
    assert response.json()["missing_scopes"] == ["stock:write"]
    assert (await client.get("/guarded", headers=headers)).status_code == 200


async def test_scopes_are_whole_words(client, token_issuer):
    """A longer or shorter name is another scope."""
    for scopes in ("items:writer", "items", "xitems:write", "ITEMS:WRITE"):
        headers = token_issuer.authorization("u1", scopes)
        assert (await client.put("/items", headers=headers)).status_code == 403


async def test_two_authorization_headers_are_refused(client, token_issuer):
    """Which one counts would be anybody's guess; proxies disagree."""
    good = token_issuer.authorization()["Authorization"]
    for second in (good, "Basic dTpw"):
        headers = [("Authorization", good), ("Authorization", second)]
        response = await client.get("/who", headers=headers)
        assert response.status_code == 400
        assert 'error="invalid_request"' in challenge(response)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_does_not_depend_on_case(client, token_issuer, scheme):
    """RFC 9110: schemes are case-insensitive."""
    headers = {"Authorization": f"{scheme} {token_issuer.token()}"}
    assert (await client.get("/who", headers=headers)).status_code == 200


async def test_without_keys_nobody_is_refused_for_good(make_settings, app_client, token_issuer):
    """When auth never answered, 503 with Retry-After: the token may well be good."""
    settings = make_settings(ServiceSettings, jwks_url="http://127.0.0.1:1/jwks.json")
    async with app_client(build(settings)) as client:
        response = await client.get("/who", headers=token_issuer.authorization())
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert (await client.get("/who")).status_code == 401


async def test_peer_errors_become_problems(client):
    """What a handler does not catch: 503 with Retry-After, 504; no address leaves."""
    response = await client.get("/peer")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json()["type"] == "urn:slipway:problem:peer-unavailable"
    assert response.json()["instance"] == "/peer"
    assert "secret address" not in response.text
    response = await client.get("/late")
    assert response.status_code == 504
    assert response.json()["type"] == "urn:slipway:problem:deadline-exceeded"


async def test_the_openapi_document_shows_what_is_needed(client, token_issuer):
    """Schemes with the scopes in use, and each operation with its own."""
    document = (await client.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    flow = schemes["OAuth2"]["flows"]["password"]
    assert flow["tokenUrl"] == f"{token_issuer.issuer}/v1/token", "where the gateway is"
    assert set(flow["scopes"]) == {"items:write", "stock:write", "profile"}
    assert schemes["Bearer"] == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token that you already have.",
    }
    needs = document["paths"]["/items"]["put"]["security"]
    assert {"OAuth2": ["items:write"]} in needs
    assert any("Bearer" in need for need in needs)
