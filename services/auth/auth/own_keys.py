"""Auth verifies its own tokens with its own keys, without a call to itself.

The chassis' verifier stays as it is, algorithm pinning and all; only the place where it fetches
the key set is another.
"""

from __future__ import annotations

import json

import httpx2

from auth.settings import Settings
from auth.signing_keys import SigningKeys
from chassis.clock import Clock
from chassis.security.verifier import TokenVerifier

# Asking costs nothing here: an unknown key is looked for at once, forged ones included.
_MIN_REFRESH_SECONDS = 0.1


class _OwnKeys(httpx2.AsyncBaseTransport):
    """Answers any request with the key set."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the public keys."""
        body = json.dumps(await self._keys.key_set()).encode()
        return httpx2.Response(200, content=body, request=request)


def own_verifier(settings: Settings, keys: SigningKeys, clock: Clock) -> TokenVerifier:
    """Return a verifier of tokens that this service issued."""
    local = settings.model_copy(
        update={
            "jwks_refresh_seconds": settings.key_reload_seconds,
            "jwks_min_refresh_seconds": _MIN_REFRESH_SECONDS,
        }
    )
    return TokenVerifier(local, clock=clock, transport=_OwnKeys(keys))
