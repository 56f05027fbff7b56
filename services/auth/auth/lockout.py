"""Lock-out: how many wrong passwords an account takes before it rests.

Two counters per account, both in the database, so that every replica counts the same:

* **per network** (an IPv4 address or an IPv6 /64): after `lockout_failures` (5) the account rests
  for that network for `lockout_seconds` (60), doubling with each further failure up to
  `lockout_cap_seconds` (15 minutes). The owner, who sits elsewhere, notices nothing: knowing an
  e-mail address is not enough to shut somebody out.
* **over all networks**: against guesses spread over many addresses, the same after
  `lockout_account_failures` (50). It does not hold for a network from which the account was
  entered in the last 30 days, so that a distributed attack cannot shut the owner out either.

The verdict is given in the transaction that counts. However many guesses arrive in parallel, only
those counted before the lock learn anything; the others hear "locked", right or wrong. An e-mail
address that has no account is counted alike, so a lock does not tell who is registered.

Rows and log lines name account and network by an HMAC, because a plain hash of an IPv4 address or
of an e-mail address is found by trying them all. Its key follows from the first key-encryption key,
which all replicas share; when that changes, the counters begin anew.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from auth.models import LoginFailures
from auth.settings import Settings

_EVERYWHERE = "*"
_TRUSTED_FOR = timedelta(days=30)
_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Who tries to log in, and from where; without the secret neither can be read back."""

    account: str
    network: str


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)


def client_address(connection: HTTPConnection, hops: int) -> str:
    """Return the client's address as the outermost of `hops` trusted proxies saw it.

    Each proxy appends to `X-Forwarded-For`; what stands further left is the client's own claim.
    """
    peer = connection.client.host if connection.client else ""
    if hops == 0:
        return peer
    header = ",".join(connection.headers.getlist("x-forwarded-for"))
    forwarded = [part.strip() for part in header.split(",") if part.strip()]
    return forwarded[-hops] if len(forwarded) >= hops else peer


class Lockout:
    """The two counters, with the limits of the settings; `secret` hides whom they count."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._secret = secret
        self._local_limit = settings.lockout_failures
        self._account_limit = settings.lockout_account_failures
        self._base = settings.lockout_seconds
        self._cap = settings.lockout_cap_seconds
        self._window = timedelta(seconds=settings.lockout_window_seconds)

    def place(self, email: str, address: str) -> Place:
        """Name the place by the normalised e-mail address and the client's address."""
        account = self._hidden("account", email.encode("utf-8", "surrogatepass"))
        return Place(account, self._hidden("network", _network(address).encode())[:32])

    def _hidden(self, kind: str, name: bytes) -> str:
        return hmac.digest(self._secret, kind.encode() + b"\0" + name, "sha256").hex()

    async def locked_until(
        self, session: AsyncSession, place: Place, now: datetime
    ) -> datetime | None:
        """Return when `place` may try again, or nothing if it may now. Counts nothing."""
        return self._verdict(await self._rows(session, place), place, now)

    async def settle(
        self, session: AsyncSession, place: Place, now: datetime, *, success: bool
    ) -> datetime | None:
        """Count an attempt and give the verdict, in one transaction.

        Returns:
            When the place may try again if it was locked **before** this attempt, which then is
            not counted and must not be answered by its merit; nothing otherwise.
        """
        if not success:
            # Made first, so that the rows below are there to be locked.
            for network in (_EVERYWHERE, place.network):
                await self._ensure(session, place.account, network)
        rows = await self._rows(session, place, lock=True)
        if until := self._verdict(rows, place, now):
            return until
        if success:
            await self._forgive(session, rows, place, now)
        else:
            self._count(rows[_EVERYWHERE], self._account_limit, now)
            self._count(rows[place.network], self._local_limit, now)
        return None

    async def purge(self, session: AsyncSession, now: datetime) -> None:
        """Delete counters that no longer say anything."""
        await session.execute(
            delete(LoginFailures).where(
                or_(
                    LoginFailures.failed_at.is_(None), LoginFailures.failed_at < now - self._window
                ),
                or_(
                    LoginFailures.succeeded_at.is_(None),
                    LoginFailures.succeeded_at < now - _TRUSTED_FOR,
                ),
                or_(LoginFailures.locked_until.is_(None), LoginFailures.locked_until < now),
            )
        )

    async def _rows(
        self, session: AsyncSession, place: Place, *, lock: bool = False
    ) -> dict[str, LoginFailures]:
        # One order for everybody, so that two attempts cannot wait for each other.
        query = (
            select(LoginFailures)
            .where(
                LoginFailures.account == place.account,
                LoginFailures.network.in_((_EVERYWHERE, place.network)),
            )
            .order_by(LoginFailures.network)
        )
        found = await session.scalars(query.with_for_update() if lock else query)
        return {row.network: row for row in found}

    def _verdict(
        self, rows: dict[str, LoginFailures], place: Place, now: datetime
    ) -> datetime | None:
        local, everywhere = rows.get(place.network), rows.get(_EVERYWHERE)
        if local and local.locked_until and local.locked_until > now:
            return local.locked_until
        known = local and local.succeeded_at and local.succeeded_at > now - _TRUSTED_FOR
        if not known and everywhere and everywhere.locked_until and everywhere.locked_until > now:
            return everywhere.locked_until
        return None

    def _count(self, row: LoginFailures, limit: int, now: datetime) -> None:
        forgotten = row.failed_at is None or row.failed_at < now - self._window
        row.failures = 1 if forgotten else row.failures + 1
        row.failed_at = now
        if row.failures >= limit:
            doublings = min(row.failures - limit, _MAX_DOUBLINGS)
            row.locked_until = now + timedelta(seconds=min(self._base * 2**doublings, self._cap))

    async def _forgive(
        self, session: AsyncSession, rows: dict[str, LoginFailures], place: Place, now: datetime
    ) -> None:
        for row in rows.values():
            row.failures, row.failed_at, row.locked_until = 0, None, None
        local = rows.get(place.network)
        if local is None:
            await self._ensure(session, place.account, place.network)
            local = (await self._rows(session, place, lock=True))[place.network]
        # Once a day is enough to remember a network; a login need not write more.
        if local.succeeded_at is None or local.succeeded_at < now - timedelta(days=1):
            local.succeeded_at = now

    @staticmethod
    async def _ensure(session: AsyncSession, account: str, network: str) -> None:
        insert = (
            postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
        )
        # An update of nothing holds a row that is there: the purge must not take it away before it
        # is read.
        await session.execute(
            insert(LoginFailures)
            .values(account=account, network=network, failures=0)
            .on_conflict_do_update(
                index_elements=[LoginFailures.account, LoginFailures.network],
                set_={"failures": LoginFailures.failures},
            )
        )
