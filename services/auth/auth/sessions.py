"""Sessions: refresh tokens with rotation and reuse detection (RFC 9700 section 4.14.2).

Each refresh token works once and is answered with its successor. If one comes back after that,
two parties hold it, and nobody can tell which is the thief: the whole session ends.

One exception keeps honest clients in. A token that was exchanged within `refresh_grace_seconds`,
and whose successor is still unused, is answered once more **with the same successor**: a response
was lost, or two tabs refreshed at once. That is safe, because a thief gains no branch of his own.
He and the owner then hold one and the same successor, and whoever uses it second is detected.

The database holds hashes only. A successor is derived from its predecessor, which only the client
has, and from a salt, which only the database has; the salt goes when the successor is used.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from auth.models import RefreshToken, Session
from auth.settings import Settings
from chassis.ids import new_id


class Refused(Enum):
    """Why a refresh token was not exchanged."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REUSED = "reused"


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that has just ended, and whose it was."""

    session_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a refresh token was not exchanged, and the session that ended with it."""

    reason: Refused
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The successor of a refresh token, and the session it belongs to."""

    token: str
    session_id: str
    user_id: str
    scopes: str


def digest(token: str) -> str:
    """Return what is stored of a token. It has 256 random bits, so a plain SHA-256 is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _successor(token: str, salt: str) -> str:
    return "slr_" + hmac.new(token.encode(), salt.encode(), hashlib.sha256).hexdigest()


class Sessions:
    """Opens, continues and ends sessions. Every method works in the caller's transaction."""

    def __init__(self, settings: Settings) -> None:
        self._lifetime = timedelta(days=settings.refresh_token_days)
        self._grace = timedelta(seconds=settings.refresh_grace_seconds)

    async def open(self, session: AsyncSession, user_id: str, scopes: str, now: datetime) -> str:
        """Begin a session and return its first refresh token.

        The session ends `refresh_token_days` after the login, however often it is refreshed.
        """
        begun = Session(
            id=new_id(),
            user_id=user_id,
            scopes=scopes,
            created_at=now,
            expires_at=now + self._lifetime,
        )
        token = "slr_" + secrets.token_hex(32)
        session.add(begun)
        await session.flush()
        session.add(RefreshToken(hash=digest(token), session_id=begun.id, created_at=now))
        return token

    async def refresh(
        self, session: AsyncSession, token: str, now: datetime
    ) -> Refreshed | Refusal:
        """Exchange a refresh token. A refusal may have ended the session: commit either way."""
        key = digest(token)
        # The lock on the session puts parallel refreshes of its tokens in a row.
        family = await session.scalar(
            select(Session)
            .join(RefreshToken, RefreshToken.session_id == Session.id)
            .where(RefreshToken.hash == key)
            .with_for_update(of=Session)
        )
        if family is None:
            return Refusal(Refused.UNKNOWN)
        if family.revoked_at is not None:
            return Refusal(Refused.REVOKED)
        if family.expires_at <= now:
            return Refusal(Refused.EXPIRED)
        presented = await session.get_one(RefreshToken, key, populate_existing=True)
        if presented.used_at is None:
            token = await self._rotate(session, presented, token, now)
        elif await self._is_repetition(session, presented, token, now):
            token = _successor(token, presented.salt or "")
        else:
            return Refusal(Refused.REUSED, await self._end(session, family.id, "reuse", now))
        return Refreshed(token, family.id, family.user_id, family.scopes)

    async def revoke(self, session: AsyncSession, token: str, now: datetime) -> Ended | None:
        """End the session of a refresh token (logout) and return it, if there was one to end."""
        row = await session.get(RefreshToken, digest(token))
        return None if row is None else await self._end(session, row.session_id, "logout", now)

    async def purge(self, session: AsyncSession, now: datetime) -> None:
        """Delete expired sessions with their tokens."""
        expired = select(Session.id).where(Session.expires_at <= now)
        await session.execute(delete(RefreshToken).where(RefreshToken.session_id.in_(expired)))
        await session.execute(delete(Session).where(Session.expires_at <= now))

    async def _rotate(
        self, session: AsyncSession, presented: RefreshToken, token: str, now: datetime
    ) -> str:
        # Its predecessor can no longer be repeated from here on.
        await session.execute(
            update(RefreshToken)
            .where(RefreshToken.session_id == presented.session_id, RefreshToken.salt.is_not(None))
            .values(salt=None)
        )
        presented.used_at, presented.salt = now, secrets.token_hex(32)
        successor = _successor(token, presented.salt)
        session.add(
            RefreshToken(hash=digest(successor), session_id=presented.session_id, created_at=now)
        )
        return successor

    async def _is_repetition(
        self, session: AsyncSession, presented: RefreshToken, token: str, now: datetime
    ) -> bool:
        if presented.salt is None or presented.used_at is None:
            return False
        if now - presented.used_at > self._grace or not self._grace:
            return False
        successor = await session.get(RefreshToken, digest(_successor(token, presented.salt)))
        return successor is not None and successor.used_at is None

    @staticmethod
    async def _end(
        session: AsyncSession, session_id: str, reason: str, now: datetime
    ) -> Ended | None:
        ended = await session.execute(
            update(Session)
            .where(Session.id == session_id, Session.revoked_at.is_(None))
            .values(revoked_at=now, revoked_for=reason)
            .returning(Session.id, Session.user_id)
        )
        row = ended.first()
        return None if row is None else Ended(*row)


async def end_all(session: AsyncSession, user_id: str, now: datetime) -> int:
    """End every session of a user; return how many there were to end."""
    ended = await session.execute(
        update(Session)
        .where(Session.user_id == user_id, Session.revoked_at.is_(None), Session.expires_at > now)
        .values(revoked_at=now, revoked_for="operator")
        .returning(Session.id)
    )
    return len(ended.all())
