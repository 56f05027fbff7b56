"""This service's own access tokens: OAuth2 client credentials (RFC 6749, section 4.4).

A token is fetched once for all callers, refreshed in the background after 80 % of its lifetime,
and used to its end when auth is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import structlog

from chassis.clock import Clock
from chassis.http.errors import DeadlineExceeded, PeerError, PeerFault, PeerUnavailable
from chassis.settings import ServiceSettings
from chassis.telemetry import shared_work

if TYPE_CHECKING:
    from chassis.http.peer import Peer

PATH = "/v1/token"
REFRESH_AT = 0.8
EXPIRY_MARGIN_SECONDS = 2.0
DEFAULT_LIFETIME_SECONDS = 300.0
BACKOFF_BASE_SECONDS = 1.0
BACKOFF_CAP_SECONDS = 30.0
OK = 200


class MissingClientSecretError(RuntimeError):
    """The service has no credentials. The text names the setting and the fix, in one line."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    refresh_at: float
    expires_at: float


class ServiceTokens:
    """The source of one service's tokens. For one event loop.

    Without a `client_secret` every `get` fails with a line that names the setting, in every
    environment: a call that silently went out without a token would fail elsewhere, and later.

    Args:
        settings: client id and secret.
        clock: tells when a token is old.
        auth: gives the peer that issues tokens.
    """

    def __init__(
        self, settings: ServiceSettings, *, clock: Clock, auth: Callable[[], Peer]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._auth = auth
        self._log = structlog.stdlib.get_logger("chassis.security")
        self._token: _Token | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._failures = 0
        self._wait_until = 0.0
        self._error: PeerError | None = None

    async def get(self) -> str:
        """Return a valid access token.

        Raises:
            MissingClientSecretError: the service has no client secret.
            PeerUnavailable: there is no valid token and auth gives none.
        """
        now = self._clock.monotonic()
        token = self._token
        if token is not None and now < token.expires_at:
            if now >= token.refresh_at and now >= self._wait_until and self._refresh is None:
                self._start(waited_for=False)
            return token.value
        self._authorization()
        if self._refresh is None and now < self._wait_until:
            raise self._unavailable()
        await asyncio.shield(self._refresh or self._start(waited_for=True))
        token = self._token
        if token is None or self._clock.monotonic() >= token.expires_at:
            raise self._unavailable()
        return token.value

    def invalidate(self, token: str) -> None:
        """Forget `token`, if it is the current one: a peer refused it."""
        if self._token is not None and self._token.value == token:
            self._token = None

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresh

    def _start(self, *, waited_for: bool) -> asyncio.Task[None]:
        self._refresh = asyncio.create_task(
            self._run(), name="token-refresh", context=shared_work(waited_for=waited_for)
        )
        self._refresh.add_done_callback(self._done)
        return self._refresh

    def _done(self, task: asyncio.Task[None]) -> None:
        self._refresh = None
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._log.error("token refresh failed", error=repr(exc))

    async def _run(self) -> None:
        try:
            self._token = await self._fetch()
        except PeerError as exc:
            self._failures += 1
            backoff = BACKOFF_BASE_SECONDS * 2.0 ** min(self._failures - 1, 10)
            self._wait_until = self._clock.monotonic() + min(backoff, BACKOFF_CAP_SECONDS)
            self._error = exc
            self._log.warning("no new token from auth", reason=str(exc), failures=self._failures)
        else:
            self._failures = 0
            self._wait_until = 0.0
            self._error = None

    async def _fetch(self) -> _Token:
        started = self._clock.monotonic()
        response = await self._auth().post(
            PATH,
            data={"grant_type": "client_credentials"},
            headers={"Authorization": self._authorization()},
            idempotent=True,
            auth=False,
        )
        if response.status_code != OK:
            raise PeerUnavailable(
                "auth",
                f"refused the client {self._settings.client_id} with {response.status_code}; "
                f"check {self._setting()}",
            )
        try:
            answer = response.json()
            value, lifetime = answer["access_token"], answer.get("expires_in")
        except (ValueError, KeyError, TypeError, AttributeError):
            value, lifetime = None, None
        if not isinstance(value, str) or not value:
            raise PeerFault("auth", response.status_code, "answered without an access token")
        if not isinstance(lifetime, int | float) or lifetime <= 0:
            lifetime = DEFAULT_LIFETIME_SECONDS
        expires_at = started + max(lifetime - EXPIRY_MARGIN_SECONDS, lifetime / 2)
        return _Token(value, started + lifetime * REFRESH_AT, expires_at)

    def _authorization(self) -> str:
        """Return HTTP Basic credentials, encoded as RFC 6749, section 2.3.1 asks."""
        secret = self._settings.client_secret
        if secret is None:
            name = self._settings.service_name
            raise MissingClientSecretError(
                f"{self._setting()} is not set, so {name} has no token for calls to other "
                "services; set it, or pass auth=False to a call that needs none"
            )
        client_id = quote_plus(self._settings.client_id)
        pair = f"{client_id}:{quote_plus(secret.get_secret_value())}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _setting(self) -> str:
        prefix = str(self._settings.model_config.get("env_prefix", ""))
        return f"{prefix}client_secret".upper()

    def _unavailable(self) -> PeerUnavailable:
        wait = max(self._wait_until - self._clock.monotonic(), 1.0)
        why = "gives no token"
        if self._error is not None and not isinstance(self._error, DeadlineExceeded):
            why = f"gives no token ({self._error})"
        return PeerUnavailable("auth", why, retry_after=wait)
