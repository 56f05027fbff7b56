"""The token endpoint: grants, scopes, clients, and errors that OAuth and problem clients read."""

import base64
import json
import time
from typing import Any
from urllib.parse import quote_plus

import pytest


def claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, body, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, body))


def assert_oauth_problem(answer: Any, status: int, error: str) -> None:
    """The answer is an error of RFC 6749 and has the members of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["error"] == error
    assert body["type"] == f"urn:slipway:problem:{error.replace('_', '-')}"
    assert body["status"] == status
    assert body["detail"] == body["error_description"]
    assert {"title", "instance", "request_id", "trace_id"} <= set(body)


async def test_a_password_gives_tokens(api: Any) -> None:
    """The access token has the header and the claims that the platform agreed on."""
    user = (await api.sign_up()).json()
    answer = await api.log_in()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 900
    assert body["refresh_token"].startswith("slr_")
    header, payload = claims(body["access_token"])
    keys = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert header == {"alg": "RS256", "typ": "at+jwt", "kid": keys[0]["kid"]}
    assert payload["iss"] == "http://auth.test"
    assert payload["aud"] == "slipway"
    assert payload["sub"] == user["id"]
    assert payload["scope"] == body["scope"] == " ".join(user["scopes"])
    assert payload["client_id"] == "slipway"
    assert payload["exp"] - payload["iat"] == 900
    assert payload["nbf"] == payload["iat"] <= time.time()
    assert payload["jti"]
    assert "email" not in payload


async def test_less_scope_may_be_asked_for_and_never_more(api: Any) -> None:
    """And a refresh keeps within what the login asked for."""
    await api.sign_up()
    answer = await api.log_in(scope="orders:read profile")
    assert answer.json()["scope"] == "orders:read profile"
    assert_oauth_problem(await api.log_in(scope="items:write"), 400, "invalid_scope")
    assert_oauth_problem(await api.log_in(scope='a"b'), 400, "invalid_scope")
    refresh = answer.json()["refresh_token"]
    assert_oauth_problem(await api.refresh(refresh, scope="orders:write"), 400, "invalid_scope")
    narrowed = (await api.refresh(refresh, scope="profile")).json()
    assert narrowed["scope"] == "profile"
    assert (await api.refresh(narrowed["refresh_token"])).json()["scope"] == "orders:read profile"


async def test_a_wrong_password_and_an_unknown_address_look_the_same(api: Any) -> None:
    """Status, code and text are equal, so nobody learns who has an account."""
    await api.sign_up()
    wrong = await api.log_in(password="a wrong password")
    unknown = await api.log_in("nobody@example.com")
    malformed = await api.log_in("not an address")
    varying = {"request_id", "trace_id"}
    bodies = []
    for answer in (wrong, unknown, malformed):
        assert_oauth_problem(answer, 400, "invalid_grant")
        bodies.append({k: v for k, v in answer.json().items() if k not in varying})
    assert bodies[0] == bodies[1] == bodies[2]


@pytest.mark.parametrize("way", ["basic", "form"])
async def test_a_service_gets_a_token_of_its_own(api: Any, way: str) -> None:
    """By Basic or in the form; no refresh token; the scopes of the client."""
    form = {"grant_type": "client_credentials"}
    if way == "basic":
        answer = await api.http.post("/v1/token", data=form, auth=("orders", "orders-secret-1234"))
    else:
        form |= {"client_id": "orders", "client_secret": "orders-secret-1234"}
        answer = await api.http.post("/v1/token", data=form)
    body = answer.json()
    assert answer.status_code == 200
    assert "refresh_token" not in body
    assert body["scope"] == "inventory:reserve events:deliver"
    _, payload = claims(body["access_token"])
    assert payload["sub"] == payload["client_id"] == "orders"


async def test_a_service_may_ask_for_less(api: Any) -> None:
    """And not for what its registration lacks."""
    form = {"grant_type": "client_credentials", "scope": "events:deliver"}
    login = ("orders", "orders-secret-1234")
    answer = await api.http.post("/v1/token", data=form, auth=login)
    assert answer.json()["scope"] == "events:deliver"
    form["scope"] = "profile"
    answer = await api.http.post("/v1/token", data=form, auth=login)
    assert_oauth_problem(answer, 400, "invalid_scope")


@pytest.mark.parametrize("encoded", [True, False])
async def test_a_client_secret_may_hold_any_character(api: Any, encoded: bool) -> None:
    """Form-encoded before Basic, as RFC 6749 says, or as it is, as many clients do."""
    secret = "p%2+ ss:wörd"
    text = f"odd:{quote_plus(secret) if encoded else secret}"
    header = {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
    form = {"grant_type": "client_credentials"}
    answer = await api.http.post("/v1/token", data=form, headers=header)
    assert answer.status_code == 200


async def test_basic_without_a_name_and_a_secret_names_no_client(api: Any) -> None:
    """Swagger UI sends it with a password: it is as if no header came."""
    await api.sign_up()
    form = {"grant_type": "password", "username": api.email, "password": api.password}
    answer = await api.http.post("/v1/token", data=form, auth=("", ""))
    assert answer.status_code == 200, answer.text
    answer = await api.http.post("/v1/token", data=form, auth=("", "x"))
    assert_oauth_problem(answer, 401, "invalid_client")
    form = {"grant_type": "client_credentials"}
    answer = await api.http.post("/v1/token", data=form, auth=("", ""))
    assert_oauth_problem(answer, 400, "unauthorized_client")


async def test_a_client_that_does_not_prove_itself_is_401(api: Any) -> None:
    """With the challenge of the scheme it used."""
    for authorization in (
        "Basic " + base64.b64encode(b"orders:wrong").decode(),
        "Basic " + base64.b64encode(b"nobody:orders-secret-1234").decode(),
        "Basic " + base64.b64encode(b"orders").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic not-base64!",
        "Basic",
    ):
        form = {"grant_type": "client_credentials"}
        headers = {"Authorization": authorization}
        answer = await api.http.post("/v1/token", data=form, headers=headers)
        assert_oauth_problem(answer, 401, "invalid_client")
        assert answer.headers["www-authenticate"].startswith("Basic ")


_ERRORS: list[tuple[dict[str, str], str, int]] = [
    ({}, "invalid_request", 400),
    ({"grant_type": ""}, "invalid_request", 400),
    ({"grant_type": "implicit"}, "unsupported_grant_type", 400),
    ({"grant_type": "password"}, "invalid_request", 400),
    ({"grant_type": "password", "username": "a@example.com"}, "invalid_request", 400),
    ({"grant_type": "refresh_token"}, "invalid_request", 400),
    ({"grant_type": "refresh_token", "refresh_token": "slr_unknown"}, "invalid_grant", 400),
    ({"grant_type": "refresh_token", "refresh_token": "\x00\ud83d"}, "invalid_request", 400),
    ({"grant_type": "client_credentials"}, "unauthorized_client", 400),
    ({"grant_type": "client_credentials", "client_id": "orders"}, "invalid_client", 401),
    ({"grant_type": "password", "client_id": "someone"}, "invalid_client", 401),
    (
        {
            "grant_type": "password",
            "client_id": "orders",
            "client_secret": "orders-secret-1234",
            "username": "a@example.com",
            "password": "x",
        },
        "unauthorized_client",
        400,
    ),
]
_MALFORMED = [
    (b'{"grant_type": "password"}', "application/json"),
    (b"grant_type=password&grant_type=password", "application/x-www-form-urlencoded"),
    (b"grant_type=%ff%fe", "application/x-www-form-urlencoded"),
    (b"\xff\xfe", "application/x-www-form-urlencoded"),
    (b"&".join(b"a%d=1" % n for n in range(50)), "application/x-www-form-urlencoded"),
    (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
    (b"", "application/x-www-form-urlencoded"),
    (b"grant_type=password", ""),
]


async def test_errors_have_the_codes_of_the_standard(api: Any) -> None:
    """RFC 6749 section 5.2, with the members of a problem beside."""
    for form, error, status in _ERRORS:
        body = "&".join(
            f"{name}={quote_plus(value.encode('utf-8', 'surrogatepass'))}"
            for name, value in form.items()
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await api.http.post("/v1/token", content=body, headers=headers)
        assert_oauth_problem(answer, status, error)


async def test_a_malformed_body_is_an_invalid_request(api: Any) -> None:
    """Another media type, a repeated parameter, bytes that are no text."""
    for body, media_type in _MALFORMED:
        headers = {"Content-Type": media_type}
        answer = await api.http.post("/v1/token", content=body, headers=headers)
        assert_oauth_problem(answer, 400, "invalid_request")


async def test_two_ways_to_authenticate_at_once_are_refused(api: Any) -> None:
    """RFC 6749 section 2.3 forbids it."""
    form = {"grant_type": "client_credentials", "client_secret": "orders-secret-1234"}
    answer = await api.http.post("/v1/token", data=form, auth=("orders", "orders-secret-1234"))
    assert_oauth_problem(answer, 400, "invalid_request")


async def test_an_oversized_body_is_413(api: Any) -> None:
    """The limit of the chassis holds for forms too."""
    answer = await api.http.post("/v1/token", data={"grant_type": "x" * 1_100_000})
    assert answer.status_code == 413


async def test_issued_tokens_are_counted_by_grant(api: Any) -> None:
    """One line per grant type in the metrics."""
    session = await api.session()
    await api.refresh(session["refresh_token"])
    assert api.metric("auth_tokens_issued_total", grant="password") == 1
    assert api.metric("auth_tokens_issued_total", grant="refresh_token") == 1
    assert api.metric("auth_logins_total", method="password", outcome="success") == 1
