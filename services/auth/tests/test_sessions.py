"""Refresh tokens: rotation, reuse, the grace for honest clients, logout."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from structlog.testing import capture_logs

from auth.models import RefreshToken, Session, User
from auth.sessions import digest


async def revoke(api: Any, token: str) -> Any:
    return await api.http.post("/v1/token/revoke", data={"token": token})


async def count(api: Any, table: Any) -> int:
    async with api.auth.database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table))


async def test_each_refresh_gives_a_new_token(api: Any) -> None:
    """A chain of ten; each works once and the account stays logged in."""
    token = (await api.session())["refresh_token"]
    seen = {token}
    for _ in range(10):
        answer = await api.refresh(token)
        assert answer.status_code == 200
        token = answer.json()["refresh_token"]
        assert token not in seen
        seen.add(token)


async def test_the_database_holds_no_refresh_token(api: Any) -> None:
    """Only its SHA-256; and a used token's salt goes with the use of its successor."""
    first = (await api.session())["refresh_token"]
    second = (await api.refresh(first)).json()["refresh_token"]
    third = (await api.refresh(second)).json()["refresh_token"]
    async with api.auth.database.reading() as session:
        rows = str((await session.execute(text("SELECT * FROM refresh_tokens"))).all())
        salts = {row.hash: row.salt for row in await session.scalars(select(RefreshToken))}
    for token in (first, second, third):
        assert token not in rows
        assert token.removeprefix("slr_") not in rows
        assert digest(token) in rows
    assert salts[digest(first)] is None
    assert salts[digest(second)] is not None


async def test_a_reused_token_ends_the_whole_session(timed_api: Any, fake_clock: Any) -> None:
    """After the grace: the thief's and the owner's tokens alike are refused from then on."""
    first = (await timed_api.session())["refresh_token"]
    other = (await timed_api.log_in()).json()["refresh_token"]
    second = (await timed_api.refresh(first)).json()["refresh_token"]
    fake_clock.advance(11)
    assert (await timed_api.refresh(first)).json()["error"] == "invalid_grant"
    assert (await timed_api.refresh(second)).json()["error"] == "invalid_grant"
    assert (await timed_api.refresh(other)).status_code == 200
    assert timed_api.metric("auth_refresh_refusals_total", reason="reused") == 1
    assert timed_api.metric("auth_refresh_refusals_total", reason="revoked") == 1


async def test_the_audit_log_says_whose_session_ended(open_api: Any) -> None:
    """By a reuse or a logout: the ids, so that an operator can look on; no address, no token."""
    async with open_api(refresh_grace_seconds=0) as api:
        body = (await api.sign_up()).json()
        stolen = (await api.log_in()).json()["refresh_token"]
        left = (await api.log_in()).json()["refresh_token"]
        async with api.auth.database.reading() as session:
            by_token = {
                row.hash: row.session_id for row in await session.scalars(select(RefreshToken))
            }
        with capture_logs() as lines:
            for _ in range(3):
                await api.refresh(stolen)
            for _ in range(2):
                await revoke(api, left)
        ended = [line for line in lines if line["event"] == "session.ended"]
    assert ended == [
        {
            "event": "session.ended",
            "log_level": level,
            "reason": reason,
            "session_id": by_token[digest(token)],
            "user_id": body["id"],
        }
        for level, reason, token in (("warning", "reuse", stolen), ("info", "logout", left))
    ]


async def test_a_repetition_within_the_grace_gets_the_same_successor(
    timed_api: Any, fake_clock: Any
) -> None:
    """A lost response does not end the session, and makes no second branch."""
    first = (await timed_api.session())["refresh_token"]
    second = (await timed_api.refresh(first)).json()["refresh_token"]
    fake_clock.advance(9)
    assert (await timed_api.refresh(first)).json()["refresh_token"] == second
    assert await count(timed_api, RefreshToken) == 2


async def test_the_grace_ends_with_the_use_of_the_successor(timed_api: Any) -> None:
    """A thief who repeats the old token after the owner went on is detected at once."""
    first = (await timed_api.session())["refresh_token"]
    second = (await timed_api.refresh(first)).json()["refresh_token"]
    third = (await timed_api.refresh(second)).json()["refresh_token"]
    assert (await timed_api.refresh(first)).status_code == 400
    assert (await timed_api.refresh(third)).status_code == 400


async def test_a_thief_within_the_grace_is_detected_at_the_next_refresh(
    timed_api: Any, fake_clock: Any
) -> None:
    """Both hold one successor: whoever uses it second, after the grace, ends the session."""
    stolen = (await timed_api.session())["refresh_token"]
    owner = (await timed_api.refresh(stolen)).json()["refresh_token"]
    thief = (await timed_api.refresh(stolen)).json()["refresh_token"]
    assert thief == owner
    thief_next = (await timed_api.refresh(thief)).json()["refresh_token"]
    fake_clock.advance(800)
    assert (await timed_api.refresh(owner)).status_code == 400
    assert (await timed_api.refresh(thief_next)).status_code == 400


async def test_without_grace_every_repetition_ends_the_session(open_api: Any) -> None:
    """The setting 0 is the strict reading of RFC 9700."""
    async with open_api(refresh_grace_seconds=0) as api:
        first = (await api.session())["refresh_token"]
        second = (await api.refresh(first)).json()["refresh_token"]
        assert (await api.refresh(first)).status_code == 400
        assert (await api.refresh(second)).status_code == 400


async def test_50_parallel_refreshes_make_one_successor(api: Any) -> None:
    """All 50 hear the same; the session goes on with exactly one new token."""
    first = (await api.session())["refresh_token"]
    answers = await asyncio.gather(*(api.refresh(first) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    successors = {answer.json()["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert await count(api, RefreshToken) == 2
    assert (await api.refresh(successors.pop())).status_code == 200


async def test_50_parallel_refreshes_without_grace_end_the_session_once(open_api: Any) -> None:
    """One wins, the others are reuse: the session is over, the winner's token too."""
    async with open_api(refresh_grace_seconds=0) as api:
        first = (await api.session())["refresh_token"]
        answers = await asyncio.gather(*(api.refresh(first) for _ in range(50)))
        won = [answer for answer in answers if answer.status_code == 200]
        assert len(won) == 1
        assert {answer.status_code for answer in answers} == {200, 400}
        assert (await api.refresh(won[0].json()["refresh_token"])).status_code == 400
        assert api.metric("auth_refresh_refusals_total", reason="reused") == 1


async def test_a_session_ends_30_days_after_the_login(timed_api: Any, fake_clock: Any) -> None:
    """However often it is refreshed."""
    token = (await timed_api.session())["refresh_token"]
    for _ in range(29):
        fake_clock.advance(24 * 3600)
        token = (await timed_api.refresh(token)).json()["refresh_token"]
    fake_clock.advance(24 * 3600)
    assert (await timed_api.refresh(token)).status_code == 400


async def test_logging_out_ends_the_session_and_only_this_one(api: Any) -> None:
    """By any refresh token of it; twice is fine (RFC 7009)."""
    first = (await api.session())["refresh_token"]
    other = (await api.log_in()).json()["refresh_token"]
    second = (await api.refresh(first)).json()["refresh_token"]
    for token in (first, second, "slr_unknown"):
        answer = await revoke(api, token)
        assert answer.status_code == 200
        assert answer.content == b""
        assert answer.headers["cache-control"] == "no-store"
    assert (await api.refresh(second)).status_code == 400
    assert (await api.refresh(other)).status_code == 200


async def test_revocation_says_what_it_cannot_do(api: Any) -> None:
    """An access token ends by itself; a request without a token is no request."""
    access = (await api.session())["access_token"]
    assert (await revoke(api, access)).json()["error"] == "unsupported_token_type"
    answer = await api.http.post("/v1/token/revoke", data={})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    wrong = await api.http.post("/v1/token/revoke", data={"token": "x"}, auth=("orders", "no"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")


async def test_what_the_account_loses_the_session_loses(api: Any) -> None:
    """A scope taken away is gone at the next refresh."""
    session = await api.session()
    async with api.auth.database.session() as write:
        await write.execute(update(User).values(scopes="profile orders:read"))
    refreshed = (await api.refresh(session["refresh_token"])).json()
    assert refreshed["scope"] == "profile orders:read keys:manage"


@pytest.mark.parametrize("suffix", ["x", " ", "\t", "%00"])
async def test_a_tampered_refresh_token_is_unknown_and_ends_nothing(api: Any, suffix: str) -> None:
    """Guessing costs the owner nothing."""
    token = (await api.session())["refresh_token"]
    assert (await api.refresh(token + suffix)).json()["error"] == "invalid_grant"
    assert (await api.refresh(token[:-1])).json()["error"] == "invalid_grant"
    assert (await api.refresh(token)).status_code == 200


async def test_expired_sessions_are_deleted_with_their_tokens(
    timed_api: Any, fake_clock: Any
) -> None:
    """The purge runs beside the requests, every ten minutes."""
    token = (await timed_api.session())["refresh_token"]
    await timed_api.refresh(token)
    fake_clock.advance(29 * 24 * 3600)
    kept = (await timed_api.log_in()).json()["refresh_token"]
    fake_clock.advance(24 * 3600)
    from auth.maintenance import purge_once

    await purge_once(timed_api.auth)
    assert await count(timed_api, Session) == 1
    assert await count(timed_api, RefreshToken) == 1
    assert (await timed_api.refresh(kept)).status_code == 200
