"""Verification of access tokens: JWTs (RFC 9068) signed with a key of the issuer's JWKS.

Only RS256 and only keys of the JWKS are ever used, whatever a token's header says: `jwk`, `jku`,
`x5u` and `x5c` are not looked at, and a `crit` header is refused. `typ` must be `at+jwt`, so that
no other kind of JWT passes for an access token.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import httpx2
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from chassis.clock import Clock
from chassis.security.jwks import JwksCache, Key
from chassis.security.principal import Principal
from chassis.settings import ServiceSettings

ALGORITHM = "RS256"
TYPES = frozenset({"at+jwt", "application/at+jwt"})
MAX_TOKEN_BYTES = 8192
CACHE_SIZE = 1024
LAST_MOMENT = 253_402_300_800  # the year 10000; any later `exp` means the same

_compact = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch


class InvalidTokenError(Exception):
    """The token is refused. The text may be shown to the caller."""


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    key: Key
    expires_at: float


class TokenVerifier:
    """Verifies access tokens; keeps the verdict on recent ones, because a signature costs time.

    Args:
        settings: issuer, audience, JWKS address and leeway.
        clock: tells the time, and when keys are old.
        transport: fetches the JWKS.
        cache_size: how many verdicts are kept; each takes about two kilobytes.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        clock: Clock,
        transport: httpx2.AsyncBaseTransport,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._clock = clock
        self._leeway = settings.token_leeway_seconds
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        self._claims = JWTClaimsRegistry(
            now=lambda: int(clock.now().timestamp()),
            leeway=int(self._leeway),
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        self._registry = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)
        self._registry.max_header_length = MAX_TOKEN_BYTES
        self.keys = JwksCache(
            settings.jwks_url,
            clock=clock,
            transport=transport,
            refresh_seconds=settings.jwks_refresh_seconds,
            min_refresh_seconds=settings.jwks_min_refresh_seconds,
            connect_timeout=settings.peer_connect_timeout_seconds,
            timeout=settings.peer_timeout_seconds,
        )

    async def verify(self, token: str) -> Principal:
        """Return who the token speaks for.

        Raises:
            InvalidTokenError: the token is refused.
            KeysUnavailableError: it cannot be judged, because the issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidTokenError("the token is too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            if self.keys.current(cached.key):
                self._cache.move_to_end(digest)
                if self._clock.now().timestamp() < cached.expires_at + self._leeway:
                    return cached.principal
                raise InvalidTokenError("the token is expired")
            del self._cache[digest]
        kid = self._key_id(token)
        key = await self.keys.find(kid)
        if key is None:
            raise InvalidTokenError("the key of the token is unknown")
        claims = self._decode(token, key)
        principal = _principal(claims)
        self._cache[digest] = _Verified(principal, key, float(min(claims["exp"], LAST_MOMENT)))
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return principal

    async def close(self) -> None:
        """Stop a refresh of the keys that is under way."""
        await self.keys.close()

    def _key_id(self, token: str) -> str:
        """Check the header and return its `kid`. Nothing in it is trusted before the signature."""
        if not _compact(token):
            raise InvalidTokenError("the token is not a JWT")
        try:
            header = jws.extract_compact(token.encode("ascii"), registry=self._registry).headers()
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise InvalidTokenError("the token is not a JWT") from exc
        if header.get("alg") != ALGORITHM:
            raise InvalidTokenError("the algorithm of the token is not allowed")
        kind = header.get("typ")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise InvalidTokenError("the token is not an access token")
        if "crit" in header:
            raise InvalidTokenError("the token has critical headers that are not understood")
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise InvalidTokenError("the token names no key")
        return kid

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, key.key, [ALGORITHM], self._registry).claims
        except (JoseError, ValueError, TypeError, RecursionError) as exc:
            raise InvalidTokenError("the signature of the token is wrong") from exc
        try:
            self._claims.validate(claims)
        except ExpiredTokenError:
            raise InvalidTokenError("the token is expired") from None
        except MissingClaimError as exc:
            raise InvalidTokenError(f"the token lacks the claim {exc.claim}") from None
        except InvalidClaimError as exc:
            raise InvalidTokenError(f"the claim {exc.claim} of the token is wrong") from None
        return claims


def _principal(claims: dict[str, Any]) -> Principal:
    scope, client = claims.get("scope", ""), claims.get("client_id")
    if not isinstance(scope, str) or not (client is None or isinstance(client, str)):
        raise InvalidTokenError("a claim of the token is wrong")
    return Principal(claims["sub"], frozenset(scope.split()), client, claims)
