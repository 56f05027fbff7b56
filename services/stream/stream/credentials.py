"""Who opens a stream: a token in a header, in the subprotocol or in the first message, or a ticket.

A browser can set no header on a WebSocket or an EventSource, and a token in a URL would end in
logs. So it buys a ticket with its token: random, good once, for seconds. The log keeps a digest.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from chassis.security import Principal
from chassis.security.dependencies import authenticate, forbidden, principal_of, unauthorized

if TYPE_CHECKING:
    from chassis.runtime import Runtime
    from stream.log import Log

SCOPE = "stream:read"
SUBPROTOCOL = "slipway.v1"
_BEARER = "bearer."
_TICKET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """What a stream may do, and until when (seconds since 1970)."""

    principal: Principal
    expires_at: float


def grant(principal: Principal | None) -> Grant:
    """Return what a caller is granted.

    Raises:
        Problem: 401 without a caller, 403 without the scope.
    """
    if principal is None:
        raise unauthorized()
    if not principal.has(SCOPE):
        raise forbidden([SCOPE], [SCOPE])
    return Grant(principal, float(principal.claims["exp"]))


async def verify(runtime: Runtime, token: str) -> Grant:
    """Return what the caller of an access token is granted.

    Raises:
        Problem: 401, 403, or 503 when no token can be judged.
    """
    return grant(await principal_of(token, runtime.verifier))


class Tickets:
    """Sells and takes tickets."""

    def __init__(self, log: Log, seconds: int) -> None:
        self._log = log
        self.seconds = seconds

    async def sell(self, sold_to: Grant) -> str:
        """Return a ticket for a stream with these rights.

        Raises:
            LogUnavailableError: it cannot be kept.
        """
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        principal = sold_to.principal
        value = {
            "sub": principal.subject,
            "scope": sorted(principal.scopes),
            "client_id": principal.client_id,
            "exp": sold_to.expires_at,
        }
        await self._log.keep(_name(ticket), json.dumps(value), self.seconds)
        return ticket

    async def take(self, ticket: str) -> Grant:
        """Return what a ticket grants; it is good for nothing after that.

        Raises:
            Problem: 401, it is unknown, used or too old.
            LogUnavailableError: it cannot be looked up.
        """
        value = await self._log.take(_name(ticket))
        if value is None:
            raise unauthorized("the ticket is unknown, used or too old")
        kept: dict[str, Any] = json.loads(value)
        principal = Principal(kept["sub"], frozenset(kept["scope"]), kept["client_id"], kept)
        return Grant(principal, float(kept["exp"]))


def _name(ticket: str) -> str:
    return "ticket:" + hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()


async def presented(conn: HTTPConnection, runtime: Runtime, tickets: Tickets) -> Grant | None:
    """Return what the credentials of an opening stream grant; None if it shows none.

    Raises:
        Problem: they are no good, or cannot be judged.
        LogUnavailableError: a ticket cannot be looked up.
    """
    ticket = conn.query_params.get("ticket")
    if ticket:
        return await tickets.take(ticket)
    for offered in conn.scope.get("subprotocols", ()):
        if offered.startswith(_BEARER):
            return await verify(runtime, offered.removeprefix(_BEARER))
    principal = await authenticate(conn)
    return None if principal is None else grant(principal)
