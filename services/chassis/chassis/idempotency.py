"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a retry repeats no work.

The key, a fingerprint of the request and the answer are one row, written in the transaction of
the work. Two ways to use it:

    # One transaction: claim, work, complete. A failure rolls back the claim with the work.
    if replay := await idempotency.claim(session):
        return replay.response()
    ...
    return await idempotency.complete(session, 201, item)

    # Several transactions (a saga): claim and attach in the first, complete in the last. A repeat
    # in between waits up to 2 s for the answer. Then it gets a `Replay` that has `resource_id` and
    # is not `completed`: it holds the claim now and answers with what the resource is at present.
    # Whether the first request died or is only slow does not matter: if it still comes to its
    # end, its `complete` raises `ClaimLostError`, and it knows that a repeat was answered before.

A request without a key is not affected: `claim` returns None, the rest does nothing.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any

import anyio
from fastapi import Depends, Header
from pydantic import BaseModel
from sqlalchemy import Row, delete, exc, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from chassis.clock import Clock
from chassis.database import Database, after_commit, database_of
from chassis.idempotency_table import idempotency_keys
from chassis.ids import new_id
from chassis.problems import Problem
from chassis.runtime import Runtime, RuntimeDep
from chassis.security.dependencies import MaybeCaller

LEASE = timedelta(seconds=30)
RETENTION = timedelta(hours=24)
WAIT_SECONDS = 2.0
_FIRST_POLL_SECONDS = 0.05
_PURGE_SECONDS = 600.0
_PURGE_BATCH = 1000
_LOCK_NOT_AVAILABLE = "55P03"

_keys = idempotency_keys.c

# Visible ASCII; the draft's quoted form ("...") may have spaces and escapes too.
_BARE = re.compile(r"[\x21\x23-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


@dataclass(frozen=True)
class Replay:
    """What an earlier request with the same key left.

    `completed`: answer with `response()`. Otherwise that request died after `attach`, or is slow:
    this one holds the claim now, answers from `resource_id` and calls `complete`.
    """

    resource_id: str | None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def completed(self) -> bool:
        """Tell whether there is an answer to repeat."""
        return self.status is not None

    def response(self) -> Response:
        """Return the first answer again, marked `Idempotency-Replayed: true`.

        Raises:
            RuntimeError: if it is not completed.
        """
        if self.status is None:
            raise RuntimeError("the first request was not completed; go on with resource_id")
        headers = {**self.headers, "Idempotency-Replayed": "true"}
        return Response(self.body, self.status, headers)


class InProgressError(Problem):
    """409: another request with this key is at work; the client may repeat it later."""

    def __init__(self) -> None:
        super().__init__(
            409,
            type="urn:slipway:problem:idempotency-in-progress",
            title="Request in progress",
            detail="A request with this Idempotency-Key is still at work; repeat it later.",
            headers={"Retry-After": "1"},
        )


class ClaimLostError(InProgressError):
    """A repeat of this request took the claim over while it was at work."""


class Idempotency:
    """The idempotency key of one request."""

    def __init__(
        self, key: str | None, *, scope: str = "", fingerprint: str = "", clock: Clock
    ) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self._clock = clock
        self._id = hashlib.sha256(f"{scope}\n{key}".encode()).hexdigest()
        self._lease: str | None = None

    async def claim(self, session: AsyncSession) -> Replay | None:
        """Claim the key in the transaction of `session`; None means: do the work.

        Make it the first use of the session: then a concurrent duplicate waits here for the
        first request, up to 2 s, and then goes on with what that one attached. Later in a
        transaction it cannot wait and answers 409 at once.

        Raises:
            Problem: 422 if the key was used for another request; 409 with `Retry-After` if the
                first request is still at work and attached nothing yet.
        """
        if self.key is None:
            return None
        may_wait = not session.in_transaction()
        waited = False
        while True:
            now = self._clock.now()
            if await self._insert(session, now):
                return None
            row = await self._unexpired(session, now)
            if row is None:
                continue
            self._check_fingerprint(row)
            if row.status is not None:
                return _replay(row)
            if row.lease_until <= now or (waited and row.resource_id is not None):
                if await self._take_over(session, row, now):
                    # Without a resource nothing of the first request is left: start anew.
                    return None if row.resource_id is None else Replay(row.resource_id)
                waited = False  # another repeat was faster: its answer comes soon
            if waited or not may_wait:
                raise InProgressError
            # Give the write lock (SQLite) and the connection back while waiting.
            await session.rollback()
            row = await self._wait(database_of(session))
            if row is not None and row.status is not None:
                self._check_fingerprint(row)
                return _replay(row)
            waited = row is not None

    async def attach(self, session: AsyncSession, resource_id: str) -> None:
        """Note the resource that the request makes, so that a retry after a crash finds it."""
        if self.key is not None:
            await self._update(session, resource_id=resource_id)

    async def complete(
        self,
        session: AsyncSession,
        status: int,
        body: bytes | BaseModel,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Store the answer in the transaction of `session`; return it as a response.

        Raises:
            ClaimLostError: another request with this key took over and was answered; nothing was
                written here, and the transaction may go on.
        """
        content = body if isinstance(body, bytes) else _json(body)
        kept = {"Content-Type": "application/json"} if content else {}
        kept.update(headers or {})
        if self.key is not None:
            await self._update(session, status=status, headers=json.dumps(kept), body=content)
            completions = database_of(session).completions
            after_commit(session, lambda: completions.announce(self._id))
        return Response(content, status, kept)

    async def _insert(self, session: AsyncSession, now: datetime) -> bool:
        database = database_of(session)
        lease = new_id()
        values = {
            "id": self._id,
            "fingerprint": self.fingerprint,
            "lease": lease,
            "lease_until": now + LEASE,
            "expires_at": now + RETENTION,
        }
        if database.dialect == "postgresql":
            # The insert waits for a concurrent one of the same key, but not as long as for rows.
            milliseconds = str(int(WAIT_SECONDS * 1000))
            await session.execute(select(func.set_config("lock_timeout", milliseconds, True)))
            statement: Any = postgresql.insert(idempotency_keys)
        else:
            statement = sqlite.insert(idempotency_keys)
        try:
            result = await session.execute(
                statement.values(**values).on_conflict_do_nothing().returning(_keys.id)
            )
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise InProgressError from None
            raise
        inserted = result.first() is not None
        if database.dialect == "postgresql":
            await session.execute(select(func.set_config("lock_timeout", "0", True)))
        if inserted:
            self._lease = lease
        return inserted

    async def _read(self, session: AsyncSession) -> Row[Any] | None:
        query = select(idempotency_keys).where(_keys.id == self._id)
        return (await session.execute(query)).one_or_none()

    async def _unexpired(self, session: AsyncSession, now: datetime) -> Row[Any] | None:
        """Return the row, None when it is gone by now or past its retention (then deleted)."""
        row = await self._read(session)
        if row is None or row.expires_at > now:
            return row
        await session.execute(
            delete(idempotency_keys).where(_keys.id == self._id, _keys.expires_at <= now)
        )
        return None

    def _check_fingerprint(self, row: Row[Any]) -> None:
        if row.fingerprint != self.fingerprint:
            raise Problem(
                422,
                type="urn:slipway:problem:idempotency-key-reused",
                title="Idempotency-Key reused",
                detail="This Idempotency-Key was sent with another request; use a new key.",
            )

    async def _take_over(self, session: AsyncSession, row: Row[Any], now: datetime) -> bool:
        lease = new_id()
        result = await session.execute(
            update(idempotency_keys)
            .where(_keys.id == self._id, _keys.lease == row.lease, _keys.status.is_(None))
            .values(lease=lease, lease_until=now + LEASE)
            .returning(_keys.id)
        )
        if result.first() is None:
            return False
        self._lease = lease
        return True

    async def _wait(self, database: Database) -> Row[Any] | None:
        """Wait until the first request is completed or gone, at most 2 s; return its row.

        Woken by a completion in this process, else it looks, ever less often: fifty duplicates
        must not take the connections that the first request needs to end.
        """
        # Real time, also in tests that hold the clock: another request is waited for.
        deadline = time.monotonic() + WAIT_SECONDS
        pause = _FIRST_POLL_SECONDS
        while True:
            with database.completions.expect(self._id) as completed:
                async with database.reading() as session:
                    row = await self._read(session)
                if row is None or row.status is not None or row.lease_until <= self._clock.now():
                    return row
                left = deadline - time.monotonic()
                if left <= 0:
                    return row
                with anyio.move_on_after(min(pause, left)):
                    await completed.wait()
            pause *= 2

    async def _update(self, session: AsyncSession, **values: Any) -> None:
        result = await session.execute(
            update(idempotency_keys)
            .where(_keys.id == self._id, _keys.lease == self._lease)
            .values(**values)
            .returning(_keys.id)
        )
        if result.first() is None:
            raise ClaimLostError


def _replay(row: Row[Any]) -> Replay:
    return Replay(row.resource_id, row.status, json.loads(row.headers), row.body)


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json(by_alias=True).encode()


def parse_key(header: str) -> str:
    """Return the key in an `Idempotency-Key` header, bare or quoted (RFC 8941 string).

    Raises:
        Problem: 400, unless it is 1 to 255 characters of visible ASCII.
    """
    value = header.strip()
    if _BARE.fullmatch(value):
        return value
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1])
    raise Problem(
        400,
        type="urn:slipway:problem:bad-idempotency-key",
        title="Bad Idempotency-Key",
        detail="Send 1 to 255 visible ASCII characters, such as a UUID.",
    )


async def _idempotency(
    request: Request,
    runtime: RuntimeDep,
    caller: MaybeCaller,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Makes a retry safe: the same key and body repeat the first answer.",
        ),
    ] = None,
) -> Idempotency:
    if idempotency_key is None:
        return Idempotency(None, clock=runtime.clock)
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise Problem(400, detail="Send Idempotency-Key once.")
    subject = "" if caller is None else caller.subject
    scope = json.dumps([subject, request.method, request.url.path])
    body = await request.body()
    digest = hashlib.sha256(request.url.query.encode() + b"\n" + body).hexdigest()
    return Idempotency(
        parse_key(idempotency_key), scope=scope, fingerprint=digest, clock=runtime.clock
    )


IdempotencyDep = Annotated[Idempotency, Depends(_idempotency)]


async def purge_expired(database: Database, now: datetime) -> int:
    """Delete keys past their retention, in batches; return how many."""
    total = 0
    while True:
        async with database.session() as session:
            old = select(_keys.id).where(_keys.expires_at <= now).limit(_PURGE_BATCH)
            result = await session.execute(
                delete(idempotency_keys).where(_keys.id.in_(old)).returning(_keys.id)
            )
            deleted = len(result.all())
        total += deleted
        if deleted < _PURGE_BATCH:
            return total


async def run_idempotency_purge(runtime: Runtime) -> None:
    """Delete expired keys every ten minutes, until cancelled."""
    while True:
        await purge_expired(runtime.database, runtime.clock.now())
        await runtime.clock.sleep(_PURGE_SECONDS)
