"""Who stands behind an e-mail address and a password, or behind an `Authorization` header."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog
from sqlalchemy import select, update

from auth import emails, users
from auth.api_keys import PREFIX, ApiKeys
from auth.lockout import Lockout, Place
from auth.metrics import Metrics
from auth.models import User
from auth.passwords import PasswordHasher
from chassis.clock import Clock
from chassis.database import Database
from chassis.security.verifier import InvalidTokenError, TokenVerifier

Method = Literal["password", "token", "api_key"]
_AUDIT = structlog.stdlib.get_logger("auth.audit")


class BadCredentialsError(Exception):
    """The credentials are wrong, or of nobody; which of the two is not told."""


class LockedOutError(Exception):
    """Too many failures. `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"locked for {retry_after} s")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody has proved to be, and what they may do."""

    subject: str
    scopes: tuple[str, ...]
    method: Method


class Logins:
    """Checks credentials, counts failures and writes the audit log."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        hasher: PasswordHasher,
        lockout: Lockout,
        api_keys: ApiKeys,
        verifier: TokenVerifier,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hasher = hasher
        self._lockout = lockout
        self._api_keys = api_keys
        self._verifier = verifier
        self._metrics = metrics

    async def by_password(self, email: str, password: str, address: str) -> Identity:
        """Check a password given from the network `address`.

        An unknown account costs the same work and is counted the same.

        Raises:
            BadCredentialsError: wrong password or no such account.
            LockedOutError: the account rests for this network.
        """
        try:
            known: str | None = emails.normalise(email)
        except ValueError:
            known = None  # nobody can have it, and the database need not see it
        place = self._lockout.place(known or email, address)
        user = await self._find(known, place)
        matches, renewed = await self._hasher.verify(password, user.password_hash if user else None)
        async with self._database.session() as session:
            until = await self._lockout.settle(session, place, self._clock.now(), success=matches)
            if matches and renewed and user and until is None:
                # The parameters of the settings have changed since the hash was made.
                await session.execute(
                    update(User)
                    .where(User.id == user.id, User.password_hash == user.password_hash)
                    .values(password_hash=renewed)
                )
        if until is not None:
            raise self._locked(place, until)
        if not matches or user is None:
            self._note("password", "failure", account=place.account[:16])
            raise BadCredentialsError
        self._note("password", "success", user_id=user.id)
        return Identity(user.id, users.login_scopes(user), "password")

    async def by_header(self, authorization: str, address: str) -> Identity:
        """Check an `Authorization` header: Basic, Bearer (a JWT or an API key) or ApiKey.

        Raises:
            BadCredentialsError: for anything else, malformed headers included.
            LockedOutError: as `by_password`.
        """
        scheme, _, credentials = authorization.partition(" ")
        credentials = credentials.strip()
        match scheme.lower():
            case "basic":
                email, password = _parse_basic(credentials)
                return await self.by_password(email, password, address)
            case "apikey":
                return await self._by_api_key(credentials)
            case "bearer" if credentials.startswith(PREFIX):
                return await self._by_api_key(credentials)
            case "bearer":
                return await self._by_token(credentials)
            case _:
                raise BadCredentialsError

    async def _by_api_key(self, key: str) -> Identity:
        grant = await self._api_keys.resolve(key)
        self._note("api_key", "success" if grant else "failure")
        if grant is None:
            raise BadCredentialsError
        return Identity(grant.owner_id, grant.scopes, "api_key")

    async def _by_token(self, token: str) -> Identity:
        try:
            principal = await self._verifier.verify(token)
        except InvalidTokenError as exc:
            self._note("token", "failure")
            raise BadCredentialsError from exc
        return Identity(principal.subject, tuple(sorted(principal.scopes)), "token")

    async def _find(self, email: str | None, place: Place) -> User | None:
        async with self._database.reading() as session:
            until = await self._lockout.locked_until(session, place, self._clock.now())
            if until is not None:
                raise self._locked(place, until)
            if email is None:
                return None
            return await session.scalar(select(User).where(User.email == email))

    def _locked(self, place: Place, until: datetime) -> LockedOutError:
        self._metrics.lockouts.inc()
        self._note("password", "locked", account=place.account[:16])
        return LockedOutError(max(1, math.ceil((until - self._clock.now()).total_seconds())))

    def _note(self, method: Method, outcome: str, **who: str) -> None:
        """Count, and write the audit line: ids and digests only, never what was presented."""
        self._metrics.logins.labels(method, outcome).inc()
        if method != "token":
            _AUDIT.info(f"login.{outcome}", method=method, **who)


def _parse_basic(credentials: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadCredentialsError from None
    email, separator, password = text.partition(":")
    if not separator:
        raise BadCredentialsError
    return email, password
