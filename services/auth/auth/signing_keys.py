"""The keys that sign access tokens, and their rotation without restart or logout.

A key passes through four states, which follow from the clock alone:

* **next**: published in the key set, not yet signing, so that verifiers learn it in time;
* **active**: the newest whose time has come signs;
* **retiring**: it signs no more, but stays published while a token it signed may still be valid;
* **gone**.

Every replica reads the table every few seconds and computes the same states. Nobody is told
anything, nothing is switched, and a replica that dies in between changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import anyio.to_thread
from joserfc.jwk import KeySet, KeySetSerialization, RSAKey
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from auth.models import SigningKey
from auth.sealing import Sealer
from auth.settings import MAX_TOKEN_SECONDS, Settings
from chassis.clock import Clock
from chassis.database import Database

ALGORITHM = "RS256"
_RSA_BITS = 2048
# Added to the longest token life: leeway of verifiers and differences between clocks.
_RETIRING = timedelta(seconds=MAX_TOKEN_SECONDS + 120)

State = Literal["next", "active", "retiring", "gone"]


class RotationConflictError(Exception):
    """Another rotation came first, or one is still being published."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A stored key with its private part open in memory."""

    number: int
    kid: str
    key: RSAKey
    created_at: datetime
    activates_at: datetime


def states(generations: Sequence[Generation], now: datetime) -> dict[int, State]:
    """Return the state of each generation at `now`; `generations` is in ascending order."""
    active = max((g.number for g in generations if g.activates_at <= now), default=None)
    found: dict[int, State] = {}
    for index, generation in enumerate(generations):
        if generation.activates_at > now:
            found[generation.number] = "next"
        elif generation.number == active:
            found[generation.number] = "active"
        else:
            # It may have signed until the first of its successors took over.
            superseded = min(g.activates_at for g in generations[index + 1 :])
            since = max(superseded, generation.activates_at)
            found[generation.number] = "retiring" if now < since + _RETIRING else "gone"
    return found


class SigningKeys:
    """The keys as this process knows them, read again every `key_reload_seconds`."""

    def __init__(
        self, settings: Settings, database: Database, clock: Clock, sealer: Sealer
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._generations: tuple[Generation, ...] = ()
        self._loading = asyncio.Lock()

    async def active(self) -> Generation:
        """Return the key that signs now; the very first is made if there is none."""
        if not self._generations:
            await self.load()
        now = self._clock.now()
        return max(
            (g for g in self._generations if g.activates_at <= now),
            key=lambda g: g.number,
            # Only a clock that lags behind the one that made the first key comes here.
            default=self._generations[0],
        )

    async def key_set(self) -> KeySetSerialization:
        """Return the public keys that verifiers need at this moment (RFC 7517)."""
        if not self._generations:
            await self.load()
        current = states(self._generations, self._clock.now())
        keys = [g.key for g in self._generations if current[g.number] != "gone"]
        return KeySet(list(keys)).as_dict(private=False)

    async def load(self) -> None:
        """Read the keys, and make the first if there is none.

        Raises:
            SealError: the key-encryption key does not open them.
        """
        async with self._loading:
            rows = await self._rows()
            if not rows:
                await self._make_first()
                rows = await self._rows()
            known = {g.kid: g for g in self._generations}
            self._generations = tuple([known.get(row.kid) or await self._open(row) for row in rows])

    async def run(self) -> None:
        """Keep reading, for ever. The chassis restarts it with backoff when the database is away.

        What is known stays in use meanwhile, so tokens are signed through an outage.
        """
        while True:
            await self.load()
            await self._clock.sleep(self._settings.key_reload_seconds)

    async def rotate(self, *, at_once: bool = False, withdraw: bool = False) -> Generation:
        """Publish a new key, which takes over after `key_publish_ahead_seconds`.

        Args:
            at_once: Take over as soon as every replica publishes it, a few seconds. Verifiers
                that do not fetch an unknown key refuse its tokens until their cache expires.
            withdraw: Forget the older keys, for when one has leaked. Tokens they signed are
                refused as verifiers renew their caches; refresh tokens and API keys go on.

        Raises:
            RotationConflictError: another rotation is under way.
        """
        await self.load()
        now = self._clock.now()
        newest = self._generations[-1]
        if newest.activates_at > now and not at_once:
            raise RotationConflictError(
                f"key {newest.kid} is published and signs from {newest.activates_at:%H:%M:%S} UTC"
            )
        ahead = (
            2 * self._settings.key_reload_seconds
            if at_once
            else self._settings.key_publish_ahead_seconds
        )
        made = await self._make(newest.number + 1, now + timedelta(seconds=ahead))
        try:
            async with self._database.session() as session:
                session.add(made)
                if withdraw:
                    await session.execute(
                        delete(SigningKey).where(SigningKey.generation < made.generation)
                    )
        except IntegrityError as exc:
            raise RotationConflictError("another rotation came first") from exc
        await self.load()
        return self._generations[-1]

    async def purge(self) -> None:
        """Delete the keys that are gone, private parts included."""
        current = states(self._generations, self._clock.now())
        if gone := [number for number, state in current.items() if state == "gone"]:
            async with self._database.session() as session:
                await session.execute(delete(SigningKey).where(SigningKey.generation.in_(gone)))

    def age_seconds(self) -> float:
        """Return for how long the active key has been signing; 0 before the first load."""
        now = self._clock.now()
        begun = [g.activates_at for g in self._generations if g.activates_at <= now]
        return (now - max(begun)).total_seconds() if begun else 0.0

    async def _rows(self) -> Sequence[SigningKey]:
        async with self._database.reading() as session:
            return (await session.scalars(select(SigningKey).order_by(SigningKey.generation))).all()

    async def _make_first(self) -> None:
        made = await self._make(1, self._clock.now())
        try:
            async with self._database.session() as session:
                session.add(made)
        except IntegrityError:
            # Another replica started at the same moment; its key is as good.
            return

    async def _make(self, number: int, activates_at: datetime) -> SigningKey:
        key = await anyio.to_thread.run_sync(_generate)
        kid = str(key.kid)
        sealed = self._sealer.seal(kid, json.dumps(key.as_dict(private=True)).encode())
        return SigningKey(
            generation=number,
            kid=kid,
            sealed=sealed,
            created_at=self._clock.now(),
            activates_at=activates_at,
        )

    async def _open(self, row: SigningKey) -> Generation:
        plain: dict[str, Any] = json.loads(self._sealer.open(row.kid, row.sealed))
        key = await anyio.to_thread.run_sync(RSAKey.import_key, plain)
        return Generation(row.generation, row.kid, key, row.created_at, row.activates_at)


def _generate() -> RSAKey:
    return RSAKey.generate_key(_RSA_BITS, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
