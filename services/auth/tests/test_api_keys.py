"""API keys: made once, shown once, limited, revoked, exchanged for short-lived tokens."""

import asyncio
import base64
import json
import time
from datetime import timedelta
from typing import Any

from sqlalchemy import event, text, update

from auth.models import ApiKey, User


async def make(api: Any, headers: dict[str, str], **body: Any) -> Any:
    body = {"name": "nightly sync", "scopes": ["orders:read"], **body}
    return await api.http.post("/v1/keys", headers=headers, json=body)


async def exchange(api: Any, key: str, method: str = "POST", path: str = "") -> Any:
    url = f"/internal/exchange{path}"
    return await api.http.request(method, url, headers={"X-API-Key": key})


def claims(answer: Any) -> dict[str, Any]:
    body = answer.headers["Authorization"].removeprefix("Bearer ").split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=="))


async def test_a_key_is_shown_once_and_stored_hashed(api: Any) -> None:
    """The list and the database know everything but the secret."""
    headers = await api.bearer()
    answer = await make(api, headers)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert made["key"].startswith(f"slk_{made['id']}_")
    secret = made["key"].split("_", 2)[2]
    assert len(secret) >= 43
    listed = (await api.http.get("/v1/keys", headers=headers)).json()
    assert listed["items"] == [{name: made[name] for name in made if name != "key"}]
    async with api.auth.database.reading() as session:
        stored = str((await session.execute(text("SELECT * FROM api_keys"))).all())
    assert secret not in stored


async def test_a_key_is_exchanged_for_a_token_of_a_minute(api: Any) -> None:
    """With the owner as the subject and the scopes of the key, good at every service."""
    headers = await api.bearer()
    made = (await make(api, headers)).json()
    answer = await exchange(api, made["key"])
    assert answer.status_code == 200
    payload = claims(answer)
    me = (await api.http.get("/v1/users/me", headers=headers)).json()
    assert payload["sub"] == me["id"]
    assert payload["scope"] == "orders:read"
    assert payload["key_id"] == made["id"]
    assert payload["exp"] - payload["iat"] <= 60
    bearer = {"Authorization": answer.headers["Authorization"]}
    assert (await api.http.post("/login/", headers=bearer)).json()["scopes"] == ["orders:read"]
    assert (await api.http.get("/v1/users/me", headers=bearer)).status_code == 403


async def test_a_key_ends_with_its_expiry(timed_api: Any, fake_clock: Any) -> None:
    """Ninety days if nothing was said."""
    headers = await timed_api.bearer()
    soon = (fake_clock.now() + timedelta(hours=1)).isoformat()
    short = (await make(timed_api, headers, expires_at=soon)).json()
    default = (await make(timed_api, headers)).json()
    fake_clock.advance(3599)
    assert (await exchange(timed_api, short["key"])).status_code == 200
    fake_clock.advance(1 + 5)
    assert (await exchange(timed_api, short["key"])).status_code == 401
    fake_clock.advance(90 * 24 * 3600 - 3700)
    assert (await exchange(timed_api, default["key"])).status_code == 200
    fake_clock.advance(100)
    assert (await exchange(timed_api, default["key"])).status_code == 401


async def test_a_revoked_key_stops_at_once_here_and_within_seconds_elsewhere(
    auth_settings: Any, app_client: Any, open_api: Any, fake_clock: Any
) -> None:
    """The other replica trusts what it read for five seconds and no longer."""
    async with open_api(clock=fake_clock) as one, open_api(clock=fake_clock) as two:
        headers = await one.bearer()
        made = (await make(one, headers)).json()
        for replica in (one, two):
            assert (await exchange(replica, made["key"])).status_code == 200
        gone = await one.http.delete(f"/v1/keys/{made['id']}", headers=headers)
        assert gone.status_code == 204
        assert (await exchange(one, made["key"])).status_code == 401
        fake_clock.advance(5)
        assert (await exchange(two, made["key"])).status_code == 401
        listed = (await one.http.get("/v1/keys", headers=headers)).json()["items"]
        assert listed[0]["revoked_at"] is not None
        again = await one.http.delete(f"/v1/keys/{made['id']}", headers=headers)
        assert again.status_code == 204


async def test_requests_in_quick_succession_share_one_token_and_one_look_up(
    timed_api: Any, fake_clock: Any
) -> None:
    """100 exchanges sign once and read the database once; after the cache's time, again."""
    made = (await make(timed_api, await timed_api.bearer())).json()
    await exchange(timed_api, made["key"])
    fake_clock.advance(5)
    statements: list[str] = []
    for engine in timed_api.auth.database.engines():
        event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda *arguments: statements.append(arguments[2]),
        )
    tokens = set()
    for _ in range(100):
        tokens.add((await exchange(timed_api, made["key"])).headers["Authorization"])
    assert len(tokens) == 1
    assert len([line for line in statements if "FROM api_keys" in line]) == 1
    fake_clock.advance(30)
    tokens.add((await exchange(timed_api, made["key"])).headers["Authorization"])
    assert len(tokens) == 2


async def test_a_new_signing_key_signs_the_token_of_a_key_at_once(
    timed_api: Any, fake_clock: Any
) -> None:
    """What a withdrawn key has signed is not handed out for the rest of its half a minute."""
    made = (await make(timed_api, await timed_api.bearer())).json()

    async def kid() -> str:
        token = (await exchange(timed_api, made["key"])).headers["Authorization"].split()[1]
        return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]

    first = await kid()
    new = await timed_api.auth.keys.rotate(at_once=True, withdraw=True)
    assert await kid() == new.kid != first
    fake_clock.advance(4)
    planned = await timed_api.auth.keys.rotate()
    assert await kid() == new.kid
    fake_clock.advance(600)
    assert await kid() == planned.kid


async def test_the_last_use_is_noted_to_the_minute(timed_api: Any, fake_clock: Any) -> None:
    """And not written at each request."""
    headers = await timed_api.bearer()
    made = (await make(timed_api, headers)).json()

    async def last_used() -> str:
        return (await timed_api.http.get("/v1/keys", headers=headers)).json()["items"][0][
            "last_used_at"
        ]

    assert await last_used() is None
    await exchange(timed_api, made["key"])
    first = await last_used()
    assert first is not None
    fake_clock.advance(30)
    await exchange(timed_api, made["key"])
    assert await last_used() == first
    fake_clock.advance(31)
    await exchange(timed_api, made["key"])
    assert await last_used() > first


async def test_a_key_grants_only_what_its_owner_still_has(timed_api: Any, fake_clock: Any) -> None:
    """A scope taken from the account leaves its keys; without any, 403."""
    headers = await timed_api.bearer()
    made = (await make(timed_api, headers, scopes=["orders:read", "profile"])).json()
    for left, status in (("profile", 200), ("notifications:read", 403)):
        async with timed_api.auth.database.session() as session:
            await session.execute(update(User).values(scopes=left))
        fake_clock.advance(5)
        answer = await exchange(timed_api, made["key"])
        assert answer.status_code == status
        if status == 200:
            assert claims(answer)["scope"] == "profile"
        else:
            assert "Authorization" not in answer.headers


_REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"scopes": ["items:write"]}, 403),
    ({"scopes": []}, 422),
    ({"scopes": ["a b"]}, 422),
    ({"scopes": ["orders:read", "keys:manage"]}, 422),
    ({"name": ""}, 422),
    ({"name": "a\x00b"}, 422),
    ({"name": "x" * 101}, 422),
    ({"expires_at": "2020-01-01T00:00:00Z"}, 422),
    ({"expires_at": "2999-01-01T00:00:00Z"}, 422),
    ({"expires_at": "2026-01-01T00:00:00"}, 422),
    ({"expires_at": "soon"}, 422),
    ({"expires_at": int(time.time()) + 86_400}, 422),
    ({"owner_id": "somebody"}, 422),
]


async def test_what_a_key_may_not_be(api: Any) -> None:
    """No scope that the token lacks, no endless life, no foreign owner."""
    headers = await api.bearer()
    for body, status in _REFUSED:
        answer = await make(api, headers, **body)
        assert answer.status_code == status, body
        assert answer.headers["content-type"] == "application/problem+json"


async def test_only_a_whole_login_manages_keys(api: Any) -> None:
    """A leaked key or a narrowed token must not make keys that outlive it, nor end others."""
    session = await api.session()
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    made = (await make(api, headers)).json()
    narrowed = (await api.log_in(scope="orders:read")).json()
    renewed = (await api.refresh(narrowed["refresh_token"])).json()
    less = (await api.refresh(session["refresh_token"], scope="orders:read")).json()
    more = await api.refresh(renewed["refresh_token"], scope="orders:read keys:manage")
    assert more.json()["error"] == "invalid_scope"
    exchanged = await exchange(api, made["key"])
    for authorization in (
        exchanged.headers["Authorization"],
        *(f"Bearer {each['access_token']}" for each in (narrowed, renewed, less)),
    ):
        token = {"Authorization": authorization}
        for answer in (
            await make(api, token),
            await api.http.get("/v1/keys", headers=token),
            await api.http.delete(f"/v1/keys/{made['id']}", headers=token),
        ):
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:slipway:problem:insufficient-scope"
    asked = (await api.log_in(scope="orders:read keys:manage")).json()
    headers = {"Authorization": f"Bearer {asked['access_token']}"}
    assert (await make(api, headers)).status_code == 201


async def test_a_key_that_was_stored_with_it_does_not_manage_keys(api: Any) -> None:
    """Whatever the row says."""
    headers = await api.bearer()
    made = (await make(api, headers)).json()
    async with api.auth.database.session() as session:
        await session.execute(update(ApiKey).values(scopes="orders:read keys:manage"))
    answer = await exchange(api, made["key"])
    assert claims(answer)["scope"] == "orders:read"


async def test_other_peoples_keys_do_not_exist(api: Any) -> None:
    """404 to read or revoke; an administrator may revoke them."""
    ada = await api.bearer("ada@example.com")
    eve = await api.bearer("eve@example.com")
    made = (await make(api, ada)).json()
    assert (await api.http.get("/v1/keys", headers=eve)).json()["items"] == []
    assert (await api.http.delete(f"/v1/keys/{made['id']}", headers=eve)).status_code == 404
    admin = await api.auth.issuer.issue("admin", ["keys:manage", "keys:admin"], client_id="slipway")
    headers = {"Authorization": f"Bearer {admin.value}"}
    assert (await api.http.delete(f"/v1/keys/{made['id']}", headers=headers)).status_code == 204
    assert (await exchange(api, made["key"])).status_code == 401


async def test_a_service_has_no_keys(api: Any) -> None:
    """Its token belongs to no user, and no client has the scope to manage keys."""
    scopes = ["events:deliver", "keys:manage"]
    token = await api.auth.issuer.issue("orders", scopes, client_id="orders")
    headers = {"Authorization": f"Bearer {token.value}"}
    assert (await make(api, headers, scopes=["events:deliver"])).status_code == 404


async def test_the_number_of_keys_is_limited_exactly(open_api: Any) -> None:
    """Also when they are asked for at once; a revoked one makes room."""
    async with open_api(api_keys_per_user=3) as api:
        headers = await api.bearer()
        answers = await asyncio.gather(*(make(api, headers) for _ in range(8)))
        assert sorted(a.status_code for a in answers) == [201] * 3 + [409] * 5
        first = next(a.json()["id"] for a in answers if a.status_code == 201)
        await api.http.delete(f"/v1/keys/{first}", headers=headers)
        assert (await make(api, headers)).status_code == 201


async def test_keys_are_listed_in_pages(api: Any) -> None:
    """The newest first; every key once."""
    headers = await api.bearer()
    made = [(await make(api, headers, name=f"key {n}")).json()["id"] for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.http.get("/v1/keys", headers=headers, params=params)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


_NO_KEYS = [
    "",
    "slk_",
    "slk__",
    "slk_x_y",
    "not-a-key",
    "slk_01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11_unknown",
    "slk_01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11_",
    "slk_' OR '1'='1' OR '1'='1' OR '1'='1'--_x",
    "slk_" + "x" * 10_000,
    "slk_01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11_\xff\xfe",
]


async def test_what_is_no_key_is_401(api: Any) -> None:
    """With a challenge and nothing to learn."""
    for key in _NO_KEYS:
        headers = {"X-API-Key": key.encode("latin-1")}
        answer = await api.http.post("/internal/exchange", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("ApiKey")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Authorization" not in answer.headers


async def test_another_secret_for_a_known_id_is_401(api: Any) -> None:
    """The id alone is worth nothing."""
    made = (await make(api, await api.bearer())).json()
    assert (await exchange(api, made["key"][:-1])).status_code == 401
    assert (await exchange(api, made["key"] + "x")).status_code == 401
    assert (await exchange(api, made["key"])).status_code == 200


async def test_envoy_may_ask_with_any_method(api: Any) -> None:
    """It asks with the method of the request that it holds back, at this path alone."""
    made = (await make(api, await api.bearer())).json()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await exchange(api, made["key"], method)
        assert answer.status_code == 200, method
        assert answer.headers["Authorization"].startswith("Bearer ")
    assert (await exchange(api, made["key"], "GET", "/v1/orders")).status_code == 404
