"""OAuth clients: the services with their secrets, and the one public client of people."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from auth.oauth import OAuthError
from auth.settings import Settings

# Swagger UI sends Basic even when its form names no client: an empty name, and no secret.
_NOBODY = "Og=="
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="slipway", charset="UTF-8"'}


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks for a token. A confidential client has proved that it is itself."""

    id: str
    scopes: tuple[str, ...]
    confidential: bool


class Clients:
    """The registered clients, from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._public = Client(settings.public_client_id, (), confidential=False)
        self._clients = {
            name: Client(name, client.scopes, confidential=True)
            for name, client in settings.clients.items()
        }
        # Only digests are compared: equal length, and no secret beyond this line.
        self._digests = {
            name: _digest(client.secret.get_secret_value())
            for name, client in settings.clients.items()
        }

    def all(self) -> list[Client]:
        """Return the confidential clients, by name."""
        return [self._clients[name] for name in sorted(self._clients)]

    def identify(self, authorization: str | None, form: Mapping[str, str]) -> Client:
        """Authenticate the client of a request (RFC 6749 section 2.3), by Basic or in the form.

        Raises:
            OAuthError: 401 `invalid_client`; 400 `invalid_request` for two methods at once.
        """
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() == "basic" and credentials.strip() != _NOBODY:
            if "client_secret" in form:
                raise OAuthError("invalid_request", "Two ways to authenticate are used at once.")
            return self._by_header(credentials)
        name, secret = form.get("client_id"), form.get("client_secret")
        if secret is not None:
            return self._by_secret(name or "", (secret,))
        if name in {None, self._public.id}:
            return self._public
        raise _unknown()

    def _by_header(self, credentials: str) -> Client:
        try:
            text = base64.b64decode(credentials.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise _unknown() from None
        name, _, secret = text.partition(":")
        # RFC 6749 form-encodes both before Basic; many clients do not. Accept either spelling.
        return self._by_secret(unquote_plus(name), (unquote_plus(secret), secret))

    def _by_secret(self, name: str, spellings: tuple[str, ...]) -> Client:
        expected = self._digests.get(name, _digest(""))
        matches = [hmac.compare_digest(_digest(secret), expected) for secret in spellings]
        if name not in self._clients or not any(matches):
            raise _unknown()
        return self._clients[name]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _unknown() -> OAuthError:
    return OAuthError(
        "invalid_client",
        "The client is unknown, or its credentials are wrong.",
        status=401,
        headers=_CHALLENGE,
    )
