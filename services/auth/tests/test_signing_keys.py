"""Signing keys: their states, rotation without a failure, and many replicas."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from auth.main import create_app
from auth.maintenance import purge_once
from auth.models import SigningKey
from auth.sealing import SealError
from auth.signing_keys import Generation, RotationConflictError, states
from chassis.clock import SystemClock
from chassis.http.transport import AiohttpTransport
from chassis.security.jwks import KeysUnavailableError
from chassis.security.verifier import InvalidTokenError, TokenVerifier
from chassis.settings import SettingsError

KEY_ONE = "mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0Vng="
KEY_TWO = "ASNFZ4mrze/+3LqYdlQyEAEjRWeJq83v/ty6mHZUMhA="
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def generation(number: int, activates: float) -> Generation:
    at = NOW + timedelta(seconds=activates)
    return Generation(number, f"k{number}", None, NOW, at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("activations", "after", "expected"),
    [
        ([0], 0, ["active"]),
        ([0, 600], 599, ["active", "next"]),
        ([0, 600], 600, ["retiring", "active"]),
        ([0, 600], 600 + 3719, ["retiring", "active"]),
        ([0, 600], 600 + 3720, ["gone", "active"]),
        ([0, 600, 1200], 1200, ["retiring", "retiring", "active"]),
        ([0, 600, 10], 10, ["retiring", "next", "active"]),
        ([0, 600, 10], 700, ["retiring", "retiring", "active"]),
        ([5], 0, ["next"]),
    ],
)
def test_the_state_of_a_key_follows_from_the_clock(
    activations: list[float], after: float, expected: list[str]
) -> None:
    """Next, active, retiring until its last token has expired, gone."""
    keys = [generation(n, at) for n, at in enumerate(activations, 1)]
    assert list(states(keys, NOW + timedelta(seconds=after)).values()) == expected


async def test_replicas_that_start_together_make_one_key(
    auth_settings: Any, app_client: Any
) -> None:
    """Five applications on one empty database sign with the same key."""
    settings = auth_settings(access_log=False, key_encryption_key=KEY_ONE)

    async def published() -> str:
        async with app_client(create_app(settings)) as client:
            keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
            assert len(keys) == 1
            return str(keys[0]["kid"])

    assert len(set(await asyncio.gather(*(published() for _ in range(5))))) == 1


async def test_the_key_set_is_public_and_cacheable(api: Any) -> None:
    """Modulus and exponent of 2048 bits or more, and no private member."""
    answer = await api.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=60"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert len(key["n"]) >= 342


async def test_the_database_holds_no_private_key(open_parts: Any) -> None:
    """What is stored is sealed, and another key-encryption key does not open it."""
    async with open_parts(key_encryption_key=KEY_ONE) as auth:
        key = (await auth.keys.active()).key
        private = key.as_dict(private=True)
        async with auth.database.reading() as session:
            stored = str((await session.execute(text("SELECT * FROM signing_keys"))).all())
        for part in ("d", "p", "q"):
            assert private[part] not in stored
    with pytest.raises(SettingsError, match=r"^AUTH_KEY_ENCRYPTION_KEY: does not open"):
        async with open_parts(key_encryption_key=KEY_TWO):
            pass
    async with open_parts(key_encryption_key=f"{KEY_TWO},{KEY_ONE}") as auth:
        assert (await auth.keys.active()).kid == key.kid


async def test_a_key_moved_to_another_row_does_not_open(open_parts: Any) -> None:
    """The seal is bound to the key id."""
    async with open_parts(key_encryption_key=KEY_ONE) as auth:
        async with auth.database.session() as session:
            await session.execute(text("UPDATE signing_keys SET kid = 'another'"))
        with pytest.raises(SealError):
            await auth.keys.load()


async def test_a_rotation_publishes_first_and_signs_later(timed_api: Any, fake_clock: Any) -> None:
    """Nobody is logged out at any moment: old tokens verify until they expire."""
    session = await timed_api.session()
    header = {"Authorization": f"Bearer {session['access_token']}"}
    first = (await timed_api.auth.keys.active()).kid

    async def published() -> list[str]:
        keys = (await timed_api.http.get("/.well-known/jwks.json")).json()["keys"]
        return [key["kid"] for key in keys]

    second = (await timed_api.auth.keys.rotate()).kid
    assert await published() == [first, second]
    assert (await timed_api.auth.keys.active()).kid == first
    fake_clock.advance(599)
    assert (await timed_api.auth.keys.active()).kid == first
    assert (await timed_api.http.get("/v1/users/me", headers=header)).status_code == 200
    fake_clock.advance(1)
    assert (await timed_api.auth.keys.active()).kid == second
    assert (await timed_api.http.get("/v1/users/me", headers=header)).status_code == 200
    assert (await timed_api.refresh(session["refresh_token"])).status_code == 200
    assert timed_api.metric("auth_signing_key_age_seconds") == 0
    fake_clock.advance(3719)
    assert await published() == [first, second]
    fake_clock.advance(1)
    assert await published() == [second]
    await purge_once(timed_api.auth)
    async with timed_api.auth.database.reading() as read:
        assert await read.scalar(select(func.count()).select_from(SigningKey)) == 1


async def test_a_running_process_follows_a_rotation_made_elsewhere(
    open_api: Any, open_parts: Any, fake_clock: Any
) -> None:
    """Without a restart: it reads the keys again every two seconds."""
    async with open_api(clock=fake_clock) as api, open_parts(clock=fake_clock) as elsewhere:
        made = await elsewhere.keys.rotate()
        await fake_clock.wait_for_sleepers(1)
        async with asyncio.timeout(20):
            kids: set[str] = set()
            while made.kid not in kids:
                fake_clock.advance(2)
                await asyncio.sleep(0.01)
                keys = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
                kids = {key["kid"] for key in keys}


async def test_rotations_at_the_same_time_make_one_key(open_parts: Any) -> None:
    """The second hears of the first; `at_once` overtakes one that is still being published."""
    async with open_parts() as auth:
        outcomes = await asyncio.gather(
            *(auth.keys.rotate() for _ in range(5)), return_exceptions=True
        )
        made = [outcome for outcome in outcomes if isinstance(outcome, Generation)]
        assert len(made) == 1
        assert all(
            isinstance(outcome, RotationConflictError)
            for outcome in outcomes
            if outcome is not made[0]
        )
        with pytest.raises(RotationConflictError, match="is published and signs from"):
            await auth.keys.rotate()
        assert (await auth.keys.rotate(at_once=True)).number == 3


async def test_a_leaked_key_can_be_withdrawn(timed_api: Any, fake_clock: Any) -> None:
    """Its tokens are refused; refresh tokens go on with the new key."""
    session = await timed_api.session()
    header = {"Authorization": f"Bearer {session['access_token']}"}
    made = await timed_api.auth.keys.rotate(at_once=True, withdraw=True)
    fake_clock.advance(4)
    async with asyncio.timeout(20):
        while (await timed_api.http.get("/v1/users/me", headers=header)).status_code != 401:
            fake_clock.advance(1)
            await asyncio.sleep(0.01)
    keys = (await timed_api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in keys] == [made.kid]
    assert (await timed_api.refresh(session["refresh_token"])).status_code == 200


class _Verifying:
    """Another service: it knows auth by its JWKS address only."""

    def __init__(self, settings: Any, url: str) -> None:
        self.transport = AiohttpTransport(max_connections=4)
        known = settings.model_copy(
            update={
                "jwks_url": f"{url}/.well-known/jwks.json",
                "jwks_refresh_seconds": 0.5,
                "jwks_min_refresh_seconds": 0.5,
            }
        )
        self.verifier = TokenVerifier(known, clock=SystemClock(), transport=self.transport)

    async def __aenter__(self) -> TokenVerifier:
        return self.verifier

    async def __aexit__(self, *_: object) -> None:
        await self.verifier.close()
        await self.transport.aclose()


async def test_a_rotation_under_load_fails_nobody(
    open_api: Any, serve_app: Any, auth_settings: Any
) -> None:
    """Tokens are issued and verified over HTTP without a pause while keys rotate three times."""
    settings = auth_settings(access_log=False, key_publish_ahead_seconds=3, key_reload_seconds=0.1)
    app = create_app(settings)
    verified: set[str] = set()
    failures: list[str] = []
    done, grown = asyncio.Event(), asyncio.Event()

    async def load(verifier: TokenVerifier, auth: Any) -> None:
        kept: list[str] = []
        while not done.is_set():
            kept.append((await auth.issuer.issue("u1", ["profile"], client_id="test")).value)
            # The newest, and the oldest of all keys: both must be good at any moment.
            for token in (kept[-1], kept[0]):
                try:
                    await verifier.verify(token)
                except (InvalidTokenError, KeysUnavailableError) as exc:
                    failures.append(repr(exc))
            kid = json.loads(_decoded(kept[-1]))["kid"]
            if kid not in verified:
                verified.add(kid)
                grown.set()
            await asyncio.sleep(0.005)

    async with serve_app(app) as url, _Verifying(settings, url) as verifier:
        auth = app.state.runtime.extras["auth"]
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(load(verifier, auth))
            async with asyncio.timeout(60):
                for count in (2, 3, 4):
                    await auth.keys.rotate()
                    while len(verified) < count:
                        grown.clear()
                        await grown.wait()
            done.set()
    assert failures == []
    assert len(verified) == 4


def _decoded(token: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "==")


async def test_tokens_are_signed_through_an_outage_of_the_database(
    open_parts: Any, fake_clock: Any
) -> None:
    """What is known stays in use."""
    async with open_parts(clock=fake_clock) as auth:
        await auth.database.close()
        async with auth.database.session() as session:
            await session.execute(text("DROP TABLE signing_keys"))
        token = await auth.issuer.issue("u1", ["profile"], client_id="test")
        assert token.value.count(".") == 2


@pytest.fixture
async def unmigrated(make_settings: Any, database_url: str, app_client: Any) -> AsyncIterator[Any]:
    """The application on a database without tables."""
    from auth.settings import Settings

    settings = make_settings(Settings, database_url=database_url, access_log=False)
    async with app_client(create_app(settings), raise_app_exceptions=False) as client:
        yield client


async def test_a_start_before_the_migrations_is_no_crash(unmigrated: Any) -> None:
    """The process lives; what needs the keys is a 5xx problem until they are there."""
    assert (await unmigrated.get("/livez")).status_code == 200
    answer = await unmigrated.get("/.well-known/jwks.json")
    assert answer.status_code in {500, 503}
    assert answer.headers["content-type"] == "application/problem+json"
