"""Sign-up and one's own account, over HTTP on each database."""

import asyncio
from typing import Any

from sqlalchemy import func, select, text

from auth.models import User
from auth.settings import LOGIN_SCOPES, USER_SCOPES


async def test_sign_up_makes_an_account_that_can_log_in(api: Any) -> None:
    """The address is kept in its one spelling; the answer holds no secret."""
    answer = await api.sign_up(" Ada@Example.COM ")
    assert answer.status_code == 201
    body = answer.json()
    assert body["email"] == "ada@example.com"
    assert body["scopes"] == [*USER_SCOPES, *LOGIN_SCOPES]
    assert body["created_at"].endswith("Z")
    assert set(body) == {"id", "email", "scopes", "created_at"}
    assert answer.headers["Location"] == "/v1/users/me"
    token = (await api.log_in("ADA@example.com")).json()["access_token"]
    me = await api.http.get("/v1/users/me", headers={"Authorization": f"Bearer {token}"})
    assert me.json() == body


async def test_the_database_holds_argon2id_and_no_password(api: Any) -> None:
    """Looked up where it is stored."""
    await api.sign_up()
    async with api.auth.database.reading() as session:
        stored = (await session.execute(text("SELECT * FROM users"))).one()
    assert any(str(value).startswith("$argon2id$") for value in stored)
    assert api.password not in str(stored)


async def test_an_address_signs_up_once(api: Any) -> None:
    """In any spelling; the second is a 409 problem and counted."""
    await api.sign_up()
    again = await api.sign_up("ADA@example.com", "another quite long one")
    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert again.json()["type"] == "urn:slipway:problem:account-exists"
    assert (await api.log_in()).status_code == 200
    assert api.metric("auth_signups_total", outcome="created") == 1
    assert api.metric("auth_signups_total", outcome="taken") == 1


async def test_20_parallel_sign_ups_of_one_address_make_one_account(api: Any) -> None:
    """Exactly one 201; the others are 409, never 5xx."""
    answers = await asyncio.gather(*(api.sign_up() for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    async with api.auth.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 1


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"password": "seven wet otters hum"}, "email"),
    ({"email": "ada@example.com"}, "password"),
    ({"email": "no address", "password": "seven wet otters hum"}, "email"),
    ({"email": "ada@example.com", "password": "short"}, "password"),
    ({"email": "ada@example.com", "password": "password1234"}, "password"),
    ({"email": "ada@example.com", "password": "x" * 129}, "password"),
    ({"email": "ada@example.com", "password": ["seven wet otters hum"]}, "password"),
    ({"email": 1, "password": "seven wet otters hum"}, "email"),
    (
        {"email": "a@b.example", "password": "seven wet otters hum", "scopes": ["x"]},
        "scopes",
    ),
]


async def test_a_bad_sign_up_names_the_field_and_not_the_password(api: Any) -> None:
    """422, one entry per field; scopes cannot be slipped in."""
    for body, field in _BAD:
        answer = await api.http.post("/v1/users", json=body)
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert {error["loc"][-1] for error in answer.json()["errors"]} == {field}
        assert str(body.get("password", "never sent")) not in answer.text


async def test_me_needs_a_user_with_the_scope(api: Any) -> None:
    """401 without a token, 403 without `profile`, 404 for a service's token."""
    assert (await api.http.get("/v1/users/me")).status_code == 401
    await api.sign_up()
    narrow = (await api.log_in(scope="orders:read")).json()["access_token"]
    refused = await api.http.get("/v1/users/me", headers={"Authorization": f"Bearer {narrow}"})
    assert refused.status_code == 403
    assert "profile" in refused.text
    service = await api.auth.issuer.issue("orders", ["profile"], client_id="orders")
    headers = {"Authorization": f"Bearer {service.value}"}
    assert (await api.http.get("/v1/users/me", headers=headers)).status_code == 404
