"""The issuer's public keys: fetched from its JWKS (RFC 7517), cached, refreshed at a bounded rate.

Keys older than the refresh time are fetched again in the background while the old ones still
serve. An unknown `kid` asks for a refresh at once, but all unknown ones together at most once per
`min_refresh_seconds`: a forged token costs the issuer nothing. When the issuer is away, the keys
that are known stay in use; without any, `KeysUnavailableError` says when to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any

import httpx2
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.clock import Clock
from chassis.telemetry import shared_work

MAX_DOCUMENT_BYTES = 256 * 1024
MIN_KEY_BITS = 2048
FIRST_RETRY_SECONDS = 1.0
OK = 200


class KeysUnavailableError(Exception):
    """The keys cannot be had now. `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__("the keys of the token issuer cannot be fetched")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that may verify. Two are equal when id and thumbprint (RFC 7638) are."""

    kid: str
    thumbprint: str
    key: RSAKey

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and (self.kid, self.thumbprint) == (
            other.kid,
            other.thumbprint,
        )

    def __hash__(self) -> int:
        return hash((self.kid, self.thumbprint))


class JwksCache:
    """The keys of one JWKS address. For one event loop."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        transport: httpx2.AsyncBaseTransport,
        refresh_seconds: float,
        min_refresh_seconds: float,
        connect_timeout: float = 1.0,
        timeout: float = 5.0,
    ) -> None:
        self._url = url
        self._clock = clock
        self._transport = transport
        self._refresh_seconds = refresh_seconds
        self._min_refresh_seconds = min_refresh_seconds
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._propagator = TraceContextTextMapPropagator()
        self._log = structlog.stdlib.get_logger("chassis.security")
        self._keys: dict[str, Key] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._asked_for_unknown_at: float | None = None
        self._failed = False
        self._refresh: asyncio.Task[None] | None = None

    def current(self, key: Key) -> bool:
        """Return whether `key` is still in the set; begin a refresh when the set is old."""
        self._refresh_if_old()
        return self._keys.get(key.kid) == key

    async def find(self, kid: str) -> Key | None:
        """Return the key named `kid`, or None when the issuer has none of that name.

        Raises:
            KeysUnavailableError: there are no keys at all, or the issuer cannot be asked for
                this one.
        """
        if self._fetched_at is None:
            await self._first()
        else:
            self._refresh_if_old()
        key = self._keys.get(kid)
        if key is None and (self._refresh is not None or self._may_ask_for_unknown()):
            # A refresh that is under way may bring the key: all who miss it wait for the same one.
            if self._refresh is None:
                self._asked_for_unknown_at = self._clock.monotonic()
            await self._join()
            key = self._keys.get(kid)
        if key is None and self._failed:
            raise KeysUnavailableError(self._min_refresh_seconds)
        return key

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresh

    async def _first(self) -> None:
        """Fetch the first keys; while the issuer is away, ask it once a second at most."""
        wait = self._since(self._tried_at, FIRST_RETRY_SECONDS)
        if self._refresh is None and wait > 0:
            raise KeysUnavailableError(wait)
        await self._join()
        if self._fetched_at is None:
            raise KeysUnavailableError(FIRST_RETRY_SECONDS)
        # What was just fetched needs no second look for an unknown key.
        self._asked_for_unknown_at = self._asked_for_unknown_at or self._clock.monotonic()

    def _refresh_if_old(self) -> None:
        if (
            self._refresh is None
            and self._since(self._fetched_at, self._refresh_seconds) <= 0
            and self._since(self._tried_at, self._min_refresh_seconds) <= 0
        ):
            self._start(waited_for=False)

    def _may_ask_for_unknown(self) -> bool:
        return self._since(self._asked_for_unknown_at, self._min_refresh_seconds) <= 0

    def _since(self, moment: float | None, seconds: float) -> float:
        """Return how long it is still until `seconds` have passed since `moment`."""
        return 0.0 if moment is None else moment + seconds - self._clock.monotonic()

    async def _join(self) -> None:
        """Wait for the one refresh under way, or for a new one; a cancelled wait leaves it be."""
        await asyncio.shield(self._refresh or self._start(waited_for=True))

    def _start(self, *, waited_for: bool) -> asyncio.Task[None]:
        self._tried_at = self._clock.monotonic()
        self._refresh = asyncio.create_task(
            self._run(), name="jwks-refresh", context=shared_work(waited_for=waited_for)
        )
        self._refresh.add_done_callback(self._done)
        return self._refresh

    def _done(self, task: asyncio.Task[None]) -> None:
        self._refresh = None
        if not task.cancelled():
            task.exception()

    async def _run(self) -> None:
        try:
            keys = _parse(await self._fetch())
        except (httpx2.HTTPError, TimeoutError, ValueError) as exc:
            self._failed = True
            self._log.warning(
                "keys of the token issuer not refreshed",
                url=self._url,
                reason=str(exc) or "timeout",
                known_keys=len(self._keys),
            )
            return
        self._keys = keys
        self._failed = False
        self._fetched_at = self._clock.monotonic()

    async def _fetch(self) -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._propagator.inject(headers)
        request = httpx2.Request(
            "GET",
            self._url,
            headers=headers,
            extensions={"timeout": {"connect": self._connect_timeout, "pool": self._timeout}},
        )
        async with asyncio.timeout(self._timeout):
            response = await self._transport.handle_async_request(request)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        if response.status_code != OK:
            raise ValueError(f"the answer was {response.status_code}")
        if len(body) > MAX_DOCUMENT_BYTES:
            raise ValueError("the document is too long")
        return body


def _parse(body: bytes) -> dict[str, Key]:
    """Return the usable keys of a JWKS; others are passed over (RFC 7517, section 5).

    Raises:
        ValueError: it is no JWKS, or none of its keys can be used.
    """
    document = json.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the document is no key set")  # noqa: TRY004  (the input is wrong, not the call)
    keys = [key for entry in entries if (key := _usable(entry)) is not None]
    if not keys:
        raise ValueError("the key set has no usable key")
    return {key.kid: key for key in keys}


def _usable(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") != "RSA":
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256":
        return None
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid:
        return None
    public = {name: entry[name] for name in ("kty", "n", "e") if name in entry}
    try:
        if len(urlsafe_b64decode(public["n"] + "==")) * 8 < MIN_KEY_BITS:
            return None
        key = RSAKey.import_key(public, {"kid": kid, "use": "sig", "alg": "RS256"})
        return Key(kid, key.thumbprint(), key)
    except (JoseError, KeyError, ValueError, TypeError):
        return None
