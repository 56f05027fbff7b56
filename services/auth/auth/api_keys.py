"""API keys: `slk_<id>_<secret>`, long-lived credentials of a user for programs.

The secret has 256 random bits, so its SHA-256 is stored and looked up by id; a slow hash would add
nothing. A key grants what it was given and its owner still has.

The gateway exchanges a key for a short-lived token at every request. The outcome is kept for
`api_key_cache_seconds` per replica: a revoked or expired key works no longer than that (5 s).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from auth import scopes as scope_text
from auth.access_tokens import AccessToken, TokenIssuer
from auth.models import ApiKey, User
from auth.settings import Settings
from chassis.clock import Clock
from chassis.database import Database
from chassis.ids import new_id

PREFIX = "slk_"
CLIENT_ID = "api-key"
_MAX_LENGTH = 200
_ID_LENGTH = 36
_NOBODY = "0" * 64
_USED_RESOLUTION = timedelta(minutes=1)
_CACHE_SIZE = 4096
_LOG = structlog.stdlib.get_logger("auth.api_keys")


class TooManyKeysError(Exception):
    """The owner has as many live keys as the setting allows."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid key stands for."""

    key_id: str
    owner_id: str
    scopes: tuple[str, ...]


@dataclass(slots=True)
class _Cached:
    grant: Grant
    trusted_until: float
    token: AccessToken | None = None
    token_until: float = 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeys:
    """Makes, lists, revokes and exchanges keys."""

    def __init__(
        self, settings: Settings, database: Database, clock: Clock, issuer: TokenIssuer
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._issuer = issuer
        self._cache: dict[str, _Cached] = {}

    async def create(
        self,
        session: AsyncSession,
        owner_id: str,
        *,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime,
    ) -> tuple[ApiKey, str]:
        """Store a new key and return it with its text, which is never seen again.

        Raises:
            TooManyKeysError: the owner has `api_keys_per_user` live ones.
        """
        now = self._clock.now()
        # The lock on the owner makes the count exact among parallel requests.
        await session.scalar(select(User.id).where(User.id == owner_id).with_for_update())
        live = await session.scalar(
            select(func.count())
            .select_from(ApiKey)
            .where(
                ApiKey.owner_id == owner_id, ApiKey.revoked_at.is_(None), ApiKey.expires_at > now
            )
        )
        if (live or 0) >= self._settings.api_keys_per_user:
            raise TooManyKeysError
        secret = secrets.token_urlsafe(32)
        key = ApiKey(
            id=new_id(),
            owner_id=owner_id,
            name=name,
            scopes=scope_text.join(scopes),
            secret_hash=_digest(secret),
            created_at=now,
            expires_at=expires_at,
        )
        session.add(key)
        await session.flush()
        return key, f"{PREFIX}{key.id}_{secret}"

    async def revoke(self, session: AsyncSession, key: ApiKey) -> None:
        """End a key. This replica forgets it at once, the others within the cache's seconds."""
        if key.revoked_at is None:
            key.revoked_at = self._clock.now()
        for digest, cached in list(self._cache.items()):
            if cached.grant.key_id == key.id:
                del self._cache[digest]
        await session.flush()

    async def resolve(self, text: str) -> Grant | None:
        """Return what a key grants, or nothing for one that is unknown, expired or revoked."""
        cached = await self._lookup(text)
        return cached.grant if cached else None

    async def exchange(self, text: str) -> AccessToken | None:
        """Return a short-lived access token for a key, or nothing if it is not valid.

        A token is signed once and shared by the requests of the next seconds, unless its key is
        replaced meanwhile: verifiers forget a withdrawn one.
        """
        cached = await self._lookup(text)
        if cached is None:
            return None
        if (
            cached.token is None
            or self._clock.monotonic() >= cached.token_until
            or not await self._issuer.signs_still(cached.token)
        ):
            seconds = self._settings.api_key_token_seconds
            cached.token = await self._issuer.issue(
                cached.grant.owner_id,
                cached.grant.scopes,
                client_id=CLIENT_ID,
                lifetime=seconds,
                key_id=cached.grant.key_id,
            )
            # Renewed at half its life, so that what is handed out never expires on the way.
            cached.token_until = self._clock.monotonic() + seconds / 2
        return cached.token

    async def _lookup(self, text: str) -> _Cached | None:
        digest = _digest(text)
        cached = self._cache.get(digest)
        if cached is not None and self._clock.monotonic() < cached.trusted_until:
            return cached
        grant = await self._read(text)
        if grant is None:
            self._cache.pop(digest, None)
            return None
        if cached is None or cached.grant != grant:
            cached = _Cached(grant, 0.0)
        cached.trusted_until = self._clock.monotonic() + self._settings.api_key_cache_seconds
        if digest not in self._cache and len(self._cache) >= _CACHE_SIZE:
            self._cache.pop(next(iter(self._cache)))
        self._cache[digest] = cached
        return cached

    async def _read(self, text: str) -> Grant | None:
        parsed = _parse(text)
        if parsed is None:
            return None
        key_id, secret = parsed
        async with self._database.reading() as session:
            row = (
                await session.execute(
                    select(ApiKey, User.scopes)
                    .join(User, User.id == ApiKey.owner_id)
                    .where(ApiKey.id == key_id)
                )
            ).first()
        matches = hmac.compare_digest(_digest(secret), row[0].secret_hash if row else _NOBODY)
        now = self._clock.now()
        if row is None or not matches:
            return None
        key, owner_scopes = row[0], scope_text.parse(row[1])
        if key.revoked_at is not None or key.expires_at <= now:
            return None
        await self._note_use(key, now)
        granted = tuple(scope for scope in scope_text.parse(key.scopes) if scope in owner_scopes)
        return Grant(key.id, key.owner_id, granted)

    async def _note_use(self, key: ApiKey, now: datetime) -> None:
        if key.last_used_at is not None and now - key.last_used_at < _USED_RESOLUTION:
            return
        try:
            async with self._database.session() as session:
                await session.execute(
                    update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=now)
                )
        except SQLAlchemyError:
            # A nicety must not refuse a valid key.
            _LOG.warning("api_key.use_not_noted", key_id=key.id)


async def revoke_all(session: AsyncSession, owner_id: str, now: datetime) -> int:
    """End every live key of a user; return how many. Replicas follow within the cache's seconds."""
    ended = await session.execute(
        update(ApiKey)
        .where(ApiKey.owner_id == owner_id, ApiKey.revoked_at.is_(None), ApiKey.expires_at > now)
        .values(revoked_at=now)
        .returning(ApiKey.id)
    )
    return len(ended.all())


def _parse(text: str) -> tuple[str, str] | None:
    if not text.isascii() or len(text) > _MAX_LENGTH or not text.startswith(PREFIX):
        return None
    key_id, _, secret = text.removeprefix(PREFIX).partition("_")
    printable = key_id.isprintable() and secret.isprintable()
    return (key_id, secret) if len(key_id) == _ID_LENGTH and secret and printable else None
