"""Lock-out: what a guesser meets, and that the owner is not shut out."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.requests import HTTPConnection

from auth.lockout import Lockout, client_address
from auth.maintenance import purge_once
from auth.models import LoginFailures
from auth.settings import Settings

WRONG = "a wrong password"


async def guess(api: Any, times: int, **headers: str) -> list[int]:
    form = {"grant_type": "password", "username": api.email, "password": WRONG}
    return [
        (await api.http.post("/v1/token", data=form, headers=headers)).status_code
        for _ in range(times)
    ]


async def enter(api: Any, **headers: str) -> int:
    form = {"grant_type": "password", "username": api.email, "password": api.password}
    answer = await api.http.post("/v1/token", data=form, headers=headers)
    return answer.status_code


def at(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


async def test_the_fifth_failure_locks_for_a_minute(timed_api: Any, fake_clock: Any) -> None:
    """429 with Retry-After in both vocabularies, for the right password too; then it opens."""
    await timed_api.sign_up()
    assert await guess(timed_api, 5) == [400] * 5
    answer = await timed_api.log_in()
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "60"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.json()["status"] == 429
    fake_clock.advance(59)
    assert (await timed_api.log_in()).headers["Retry-After"] == "1"
    fake_clock.advance(1)
    assert (await timed_api.log_in()).status_code == 200
    assert timed_api.metric("auth_lockouts_total") == 2
    assert timed_api.metric("auth_logins_total", method="password", outcome="locked") == 2


async def test_the_lock_doubles_up_to_15_minutes(timed_api: Any, fake_clock: Any) -> None:
    """1, 2, 4, 8, 15, 15 minutes, one failure each."""
    await timed_api.sign_up()
    await guess(timed_api, 4)
    waits = []
    for _ in range(6):
        assert await guess(timed_api, 1) == [400]
        waits.append(int((await timed_api.log_in()).headers["Retry-After"]))
        fake_clock.advance(waits[-1])
    assert waits == [60, 120, 240, 480, 900, 900]


async def test_a_success_or_an_hour_forgives(timed_api: Any, fake_clock: Any) -> None:
    """Four failures never lock, however often they happen with a pause or a login between."""
    await timed_api.sign_up()
    for _ in range(3):
        assert await guess(timed_api, 4) == [400] * 4
        assert await enter(timed_api) == 200
        assert await guess(timed_api, 4) == [400] * 4
        fake_clock.advance(3601)
    assert await enter(timed_api) == 200


async def test_an_unknown_address_locks_alike(timed_api: Any) -> None:
    """So the lock does not tell who is registered."""
    statuses = [(await timed_api.log_in("nobody@example.com")).status_code for _ in range(6)]
    assert statuses == [400] * 5 + [429]


async def test_a_guesser_elsewhere_does_not_lock_the_owner_out(open_api: Any) -> None:
    """The lock is for the guesser's network; the owner enters from another."""
    async with open_api(trusted_proxy_hops=1) as api:
        await api.sign_up()
        assert await guess(api, 6, **at("203.0.113.9")) == [400] * 5 + [429]
        assert await enter(api, **at("203.0.113.9")) == 429
        assert await enter(api, **at("198.51.100.7")) == 200


async def test_hopping_within_an_ipv6_network_does_not_help(open_api: Any) -> None:
    """A /64 is one place: that is what one subscriber has."""
    async with open_api(trusted_proxy_hops=1) as api:
        await api.sign_up()
        for n in range(5):
            assert await guess(api, 1, **at(f"2001:db8:1:2::{n}")) == [400]
        assert await guess(api, 1, **at("2001:db8:1:2:ffff::1")) == [429]
        assert await guess(api, 1, **at("2001:db8:1:3::1")) == [400]


async def test_a_claimed_address_does_not_help(open_api: Any) -> None:
    """Only what the trusted proxy appended counts; without one, only the socket."""
    async with open_api(trusted_proxy_hops=1) as api:
        await api.sign_up()
        for n in range(5):
            assert await guess(api, 1, **at(f"10.9.8.{n}, 203.0.113.9")) == [400]
        assert await guess(api, 1, **at("10.9.8.77, 203.0.113.9")) == [429]


async def test_guesses_from_many_networks_lock_the_account_but_not_for_its_owner(
    open_api: Any, fake_clock: Any
) -> None:
    """50 failures over all networks; where the owner logged in before, the door stays open."""
    async with open_api(trusted_proxy_hops=1, lockout_account_failures=8, clock=fake_clock) as api:
        await api.sign_up()
        home, hotel = at("198.51.100.7"), at("192.0.2.33")
        assert await enter(api, **home) == 200
        for n in range(8):
            assert await guess(api, 1, **at(f"203.0.113.{n}")) == [400]
        assert await guess(api, 1, **at("203.0.113.200")) == [429]
        assert await enter(api, **hotel) == 429
        assert await enter(api, **home) == 200
        assert await enter(api, **hotel) == 200


async def test_parallel_guesses_learn_no_more_than_five(api: Any) -> None:
    """30 at once, the right one among the last: the verdict is given where it is counted."""
    await api.sign_up()
    answers = await asyncio.gather(*(guess(api, 1) for _ in range(30)))
    statuses = sorted(status for answer in answers for status in answer)
    assert statuses == [400] * 5 + [429] * 25
    assert await enter(api) == 429


async def test_20_parallel_logins_of_the_owner_all_succeed(api: Any) -> None:
    """Counting failures costs honest parallel clients nothing."""
    await api.sign_up()
    assert await asyncio.gather(*(enter(api) for _ in range(20))) == [200] * 20


async def test_replicas_share_the_count(auth_settings: Any, app_client: Any) -> None:
    """Two applications on one database: three failures here and two there lock both."""
    from auth.main import create_app

    form = {"grant_type": "password", "username": "a@example.com", "password": WRONG}
    settings = auth_settings(access_log=False)
    async with app_client(create_app(settings)) as one, app_client(create_app(settings)) as two:
        for client in (one, one, one, two, two):
            assert (await client.post("/v1/token", data=form)).status_code == 400
        for client in (one, two):
            assert (await client.post("/v1/token", data=form)).status_code == 429


async def test_forgotten_counters_are_deleted(timed_api: Any, fake_clock: Any) -> None:
    """An hour after the last failure nothing is left of somebody who has no account."""
    for n in range(3):
        await timed_api.log_in(f"nobody{n}@example.com")
    fake_clock.advance(3601)
    await timed_api.log_in("late@example.com")
    await purge_once(timed_api.auth)
    async with timed_api.auth.database.reading() as session:
        left = await session.scalar(
            select(func.count(LoginFailures.account.distinct())).select_from(LoginFailures)
        )
    assert left == 1


async def test_the_purge_takes_no_counter_that_is_being_counted(
    open_parts: Any, fake_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure after the window's end finds its old row, and the purge comes just then."""
    async with open_parts(clock=fake_clock) as auth:
        lockout, place = auth.lockout, auth.lockout.place("a@example.com", "192.0.2.1")

        async def fail() -> None:
            async with auth.database.session() as session:
                await lockout.settle(session, place, fake_clock.now(), success=False)

        async def purge() -> None:
            async with auth.database.session() as session:
                await lockout.purge(session, fake_clock.now())

        await fail()
        fake_clock.advance(2 * 3600)
        ensure, purges = lockout._ensure, []

        async def ensure_and_purge(*arguments: Any) -> None:
            await ensure(*arguments)
            purges.append(asyncio.create_task(purge()))
            # Long enough for a purge that nothing holds; one that waits ends with the test.
            await asyncio.wait(purges, timeout=0.5)

        monkeypatch.setattr(lockout, "_ensure", ensure_and_purge)
        await fail()
        await asyncio.gather(*purges)
        async with auth.database.reading() as session:
            rows = (await session.scalars(select(LoginFailures))).all()
    assert sorted((row.network == "*", row.failures) for row in rows) == [(False, 1), (True, 1)]


async def test_what_is_stored_and_logged_cannot_be_guessed_back(
    open_api: Any, capfd: Any, caplog: Any
) -> None:
    """No plain hash of the account or the address, which trying them all would find."""
    async with open_api(trusted_proxy_hops=1) as api:
        await guess(api, 1, **at("203.0.113.9"))
        await guess(api, 5, **at("2001:db8::9"))
        async with api.auth.database.reading() as session:
            rows = (await session.scalars(select(LoginFailures))).all()
    [account] = {row.account for row in rows}
    written = "".join(capfd.readouterr()) + caplog.text
    assert account[:16] in written
    stored = " ".join(f"{row.account} {row.network}" for row in rows)
    for guessed in (api.email, "203.0.113.9", "2001:db8::/64"):
        plain = hashlib.sha256(guessed.encode()).hexdigest()
        assert guessed not in stored
        assert plain[:16] not in stored + written


def test_replicas_name_a_place_alike_and_another_secret_otherwise() -> None:
    """One secret, one name; all addresses of an IPv6 network are one."""
    one, two, other = (Lockout(Settings(), secret * 32) for secret in (b"a", b"a", b"b"))
    place = one.place("a@example.com", "2001:db8::1")
    assert place == two.place("a@example.com", "2001:db8::2")
    changed = other.place("a@example.com", "2001:db8::1")
    assert changed.account != place.account
    assert changed.network != place.network


async def test_an_attempt_under_a_lock_is_not_counted(open_parts: Any, fake_clock: Any) -> None:
    """Hammering at a locked door does not lengthen the lock."""
    async with open_parts(clock=fake_clock) as auth:
        lockout, place = auth.lockout, auth.lockout.place("a@example.com", "192.0.2.1")
        now = fake_clock.now()
        verdicts = []
        for _ in range(10):
            async with auth.database.session() as session:
                verdicts.append(await lockout.settle(session, place, now, success=False))
    assert verdicts == [None] * 5 + [now + timedelta(seconds=60)] * 5


@pytest.mark.parametrize(
    ("forwarded", "hops", "address"),
    [
        (None, 0, "192.0.2.1"),
        ("203.0.113.5", 0, "192.0.2.1"),
        (None, 1, "192.0.2.1"),
        ("203.0.113.5", 1, "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5", 1, "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5, 10.0.0.1", 2, "203.0.113.5"),
        ("203.0.113.5", 2, "192.0.2.1"),
        (" , ", 1, "192.0.2.1"),
    ],
)
def test_the_address_is_what_the_trusted_proxies_saw(
    forwarded: str | None, hops: int, address: str
) -> None:
    """Counted from the right; what is missing falls back to the socket."""
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "headers": headers, "client": ("192.0.2.1", 1234)}
    assert client_address(HTTPConnection(scope), hops) == address
