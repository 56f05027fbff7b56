"""Access tokens: JWTs of the profile RFC 9068, signed RS256."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from joserfc import jwt

from auth import scopes as scope_text
from auth.settings import Settings
from auth.signing_keys import ALGORITHM, SigningKeys
from chassis.clock import Clock


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, what it grants, for how many seconds, and the key that signed it."""

    value: str
    scope: str
    expires_in: int
    kid: str


class TokenIssuer:
    """Signs access tokens with the active key."""

    def __init__(self, settings: Settings, keys: SigningKeys, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    async def issue(
        self,
        subject: str,
        scopes: Sequence[str],
        *,
        client_id: str,
        lifetime: int | None = None,
        key_id: str | None = None,
    ) -> AccessToken:
        """Sign a token for `subject`.

        Args:
            subject: The id of a user, or of a client that acts for itself.
            scopes: What the token grants.
            client_id: Who asked for it.
            lifetime: Seconds; the setting `access_token_seconds` by default.
            key_id: The API key that it stands for, if any.
        """
        seconds = lifetime or self._settings.access_token_seconds
        now = self._clock.now()
        # Asked for last: the older of two keys must not sign after the newer has taken over.
        key = await self._keys.active()
        claims = {
            "iss": self._settings.issuer,
            "aud": self._settings.audience,
            "sub": subject,
            "scope": scope_text.join(scopes),
            "client_id": client_id,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=seconds)).timestamp()),
            "jti": secrets.token_urlsafe(16),
        }
        if key_id is not None:
            claims["key_id"] = key_id
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": key.kid}
        value = jwt.encode(header, claims, key.key, algorithms=[ALGORITHM])
        return AccessToken(value, scope_text.join(scopes), seconds, key.kid)

    async def signs_still(self, token: AccessToken) -> bool:
        """Say whether the key that signed `token` is the active one, so neither old nor leaked."""
        return token.kid == (await self._keys.active()).kid
