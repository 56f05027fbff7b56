"""`POST /login/`: 200 or 401 for whatever stands in the Authorization header."""

import base64
import random
from typing import Any


def basic(email: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{email}:{password}".encode()).decode()


async def login(api: Any, authorization: str | bytes | None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await api.http.post("/login/", headers=headers)


async def test_each_kind_of_credentials_is_accepted(api: Any) -> None:
    """E-mail and password, access token, API key in both spellings; schemes in any case."""
    bearer = (await api.bearer())["Authorization"]
    user = (await api.http.get("/v1/users/me", headers={"Authorization": bearer})).json()
    body = {"name": "x", "scopes": ["profile"]}
    headers = {"Authorization": bearer}
    key = (await api.http.post("/v1/keys", headers=headers, json=body)).json()["key"]
    everything = sorted(user["scopes"])
    for authorization, method, scopes in [
        (basic(api.email, api.password), "password", everything),
        (basic("ADA@example.com", api.password).replace("Basic", "bAsIc"), "password", everything),
        (bearer, "token", everything),
        (bearer.replace("Bearer", "bearer"), "token", everything),
        (f"Bearer {key}", "api_key", ["profile"]),
        (f"ApiKey {key}", "api_key", ["profile"]),
    ]:
        answer = await login(api, authorization)
        assert answer.status_code == 200, authorization
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert body["subject"] == user["id"]
        assert body["method"] == method
        assert sorted(body["scopes"]) == scopes


async def test_the_slash_at_the_end_may_be_left_out(api: Any) -> None:
    """It is answered, never redirected: a redirect behind TLS would name http."""
    await api.bearer()
    good = {"Authorization": basic(api.email, api.password)}
    for path in ("/login", "/login/"):
        assert (await api.http.post(path, headers=good)).json()["method"] == "password"
        assert (await api.http.post(path)).status_code == 401
    form = {"grant_type": "password", "username": api.email, "password": api.password}
    answer = await api.http.post("/v1/token/", data=form)
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


_REFUSED = [
    None,
    "",
    "Basic",
    "Basic ",
    "Basic %%%",
    "Basic " + base64.b64encode(b"no colon").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
    "Basic " + base64.b64encode(b"a\x00b@example.com:\x00").decode(),
    "Basic " + base64.b64encode(b":").decode(),
    basic("ada@example.com", "a wrong password"),
    basic("nobody@example.com", "seven wet otters hum"),
    basic("' OR 1=1 --", "' OR 1=1 --"),
    basic("a" * 3000, "b" * 3000),
    "Bearer",
    "Bearer ",
    "Bearer a.b.c",
    "Bearer ...",
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Bearer slk_x_y",
    "Bearer opaque",
    "ApiKey",
    "ApiKey x",
    "Digest username=x",
    "Negotiate",
    "\t \t",
    b"\xff\xfe\xfd",
    b"Basic \xe2\x82",
    b"Bearer \xf0\x9f\x98\x80",
]


async def test_anything_else_is_401_with_the_challenges(api: Any) -> None:
    """A problem; never a 5xx, whatever the header holds."""
    await api.sign_up()
    for authorization in _REFUSED:
        answer = await login(api, authorization)
        assert answer.status_code == 401, authorization
        assert answer.headers["content-type"] == "application/problem+json"
        for scheme in ("Basic realm", "Bearer", "ApiKey"):
            assert scheme in answer.headers["www-authenticate"]


async def test_random_headers_are_401(api: Any) -> None:
    """Two hundred of them, from a fixed seed."""
    source = random.Random(42)
    for _ in range(200):
        scheme = source.choice([b"Basic ", b"Bearer ", b"ApiKey slk_", b"Bearer slk_", b""])
        noise = bytes(source.choice(range(0x20, 0x100)) for _ in range(source.randrange(60)))
        if source.random() < 0.5:
            noise = base64.b64encode(noise)
        assert (await login(api, scheme + noise)).status_code == 401


async def test_a_locked_account_is_401_with_the_time_to_wait(
    timed_api: Any, fake_clock: Any
) -> None:
    """The lock of the token endpoint and of this one is the same."""
    await timed_api.sign_up()
    for _ in range(5):
        await timed_api.log_in(password="a wrong password")
    answer = await login(timed_api, basic(timed_api.email, timed_api.password))
    assert answer.status_code == 401
    assert answer.headers["Retry-After"] == "60"
    assert answer.json()["type"] == "urn:slipway:problem:locked-out"
    fake_clock.advance(60)
    answer = await login(timed_api, basic(timed_api.email, timed_api.password))
    assert answer.status_code == 200
