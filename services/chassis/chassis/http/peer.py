"""Calls to another service: deadline, retries, circuit breaker, tokens, traces and metrics.

What counts against the breaker: no connection, a lost connection, a timeout, an answer that is not
HTTP or too large, and any 5xx except 501. What does not: every other answer, a cancelled call, a
call that the caller's own deadline cut short before the peer had half of its usual time (else a
client with a tiny deadline could open breakers for everybody), and a timeout that this process
noticed late: then its own event loop was too busy to tell who was slow.

What is retried, when the call is idempotent and the retry budget allows: no connection, a lost
connection, 502, 503, 504 and 429; never a timeout of the answer. A connection that was closed
before any byte of an answer is tried again once at once: most often it was idle for too long.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import structlog
from opentelemetry.trace import TracerProvider

from chassis import context
from chassis.clock import Clock
from chassis.http import deadline as deadlines
from chassis.http.breaker import BreakerOpenError, BreakerState, CircuitBreaker, Permit
from chassis.http.errors import (
    ClosedBeforeResponseError,
    DeadlineExceeded,
    PeerError,
    PeerFault,
    PeerUnavailable,
    ResponseTooLargeError,
)
from chassis.http.metrics import HttpClientMetrics
from chassis.http.retry import RetryBudget, full_jitter, parse_retry_after
from chassis.http.tracing import ClientTracer
from chassis.settings import ServiceSettings

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
SERVER_ERROR = 500
NOT_IMPLEMENTED = 501
TOO_MANY_REQUESTS = 429
UNAUTHORIZED = 401
MIN_BUDGET = 0.001
LATE_SECONDS = 0.1


class TokenSource(Protocol):
    """Gives this service's own access token (see `chassis.security.tokens.ServiceTokens`)."""

    async def get(self) -> str:
        """Return a valid token."""
        ...

    def invalidate(self, token: str) -> None:
        """Forget `token`, which a peer refused."""
        ...


@dataclass(slots=True)
class _Call:
    """One call as asked for; its attempts share it."""

    method: str
    url: str
    arguments: dict[str, Any]
    headers: dict[str, str]
    timeout: float
    idempotent: bool
    auth: bool
    attempts: int = 0
    stale_forgiven: bool = False
    token_renewed: bool = False


class Peer:
    """A client of one peer service. Made by `Peers`, one per name, for one event loop.

    Args:
        name: of the peer, for metrics, logs and errors.
        base_url: where it is, such as `http://items`.
        settings: the calling service's.
        transport: shared by the peers of a process.
        tokens: of the calling service; without it calls carry no token.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        settings: ServiceSettings,
        clock: Clock,
        transport: httpx2.AsyncBaseTransport,
        metrics: HttpClientMetrics,
        tracer_provider: TracerProvider | None = None,
        tokens: TokenSource | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self._metrics = metrics
        self._tracer = ClientTracer(name, tracer_provider)
        self._tokens = tokens
        self._rng = rng or random.Random()  # noqa: S311  (jitter, no secret)
        self._budget = RetryBudget(settings.peer_retry_budget, clock)
        self._log = structlog.stdlib.get_logger("chassis.http")
        self.breaker = CircuitBreaker(
            failures=settings.breaker_failures,
            reset_seconds=settings.breaker_reset_seconds,
            clock=clock,
            on_change=self._breaker_changed,
        )
        metrics.state(name, self.breaker.state)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"slipway-{settings.service_name}/{settings.version}",
        }

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  (one limit per attempt, beside the deadline)
        idempotent: bool | None = None,
        auth: bool = True,
    ) -> httpx2.Response:
        """Call the peer; return its response, body read, when its status is below 500 and not 429.

        Args:
            method: the HTTP method.
            path: an absolute path; quote what users put in it.
            json: a JSON body.
            data: a form, instead of `json`.
            content: a raw body, instead of `json`.
            params: the query.
            headers: added to those of the chassis, and win over them.
            timeout: seconds for one attempt, by default the setting `peer_timeout_seconds`; never
                more than the caller's remaining budget.
            idempotent: whether the call may be repeated; by default the method decides.
            auth: send this service's own token, unless `headers` has an Authorization.

        Raises:
            PeerUnavailable: no answer, or the breaker is open.
            PeerFault: 5xx or 429 after the retries.
            DeadlineExceeded: the caller's budget is spent.
            ValueError: the path is not absolute.
        """
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f"the path of a call must begin with one slash: {path!r}")
        method = method.upper()
        given = {"json": json, "data": data, "content": content, "params": params}
        call = _Call(
            method=method,
            url=self.base_url + path,
            arguments={name: value for name, value in given.items() if value is not None},
            headers={**self._headers, **(headers or {})},
            timeout=timeout or self._settings.peer_timeout_seconds,
            idempotent=method in IDEMPOTENT if idempotent is None else idempotent,
            auth=auth and not any(name.lower() == "authorization" for name in headers or {}),
        )
        self._budget.deposit()
        while True:
            error: PeerUnavailable | PeerFault
            try:
                return await self._attempt(call)
            except _Retry as retry:
                error = retry.error
                delay = self._delay(call, retry)
            if delay is None:
                raise error
            self._metrics.retries.labels(self.name).inc()
            if delay:
                await self._clock.sleep(delay)

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        """Call `request("GET", ...)`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx2.Response:
        """Call `request("POST", ...)`."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx2.Response:
        """Call `request("PUT", ...)`."""
        return await self.request("PUT", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx2.Response:
        """Call `request("DELETE", ...)`."""
        return await self.request("DELETE", path, **options)

    async def _attempt(self, call: _Call) -> httpx2.Response:
        """Make one attempt.

        Raises:
            _Retry: it failed in a way that another attempt may mend.
            PeerError: it failed for good.
        """
        token = await self._token(call)
        limit, cut_short = self._limit(call)
        try:
            permit = self.breaker.acquire()
        except BreakerOpenError as exc:
            self._metrics.attempt(self.name, call.method, "open", None)
            raise PeerUnavailable(self.name, str(exc), retry_after=exc.retry_after) from None
        with permit:
            response = await self._send(call, permit, token, limit, cut_short=cut_short)
        if response.status_code == UNAUTHORIZED and token and not call.token_renewed:
            # The token was revoked or its key is gone: get another, once. A 401 did nothing.
            call.token_renewed = True
            assert self._tokens is not None
            self._tokens.invalidate(token)
            return await self._attempt(call)
        return response

    async def _send(
        self, call: _Call, permit: Permit, token: str | None, limit: float, *, cut_short: bool
    ) -> httpx2.Response:
        headers = dict(call.headers)
        headers[deadlines.HEADER] = str(int(limit * 1000))
        if request_id := context.request_id():
            headers.setdefault("X-Request-ID", request_id)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        started = self._clock.monotonic()
        status = "cancelled"
        with self._tracer.attempt(call.method, call.url, headers, call.attempts) as span:
            call.attempts += 1
            request = httpx2.Request(
                call.method,
                call.url,
                headers=headers,
                extensions={"timeout": {"connect": self._settings.peer_connect_timeout_seconds}},
                **call.arguments,
            )
            try:
                async with asyncio.timeout(limit):
                    response = await self._transport.handle_async_request(request)
                    try:
                        await response.aread()
                    finally:
                        await response.aclose()
                status = str(response.status_code)
                span.answered(response.status_code)
                return self._judge(permit, response)
            except TimeoutError:
                status = "deadline" if cut_short else "timeout"
                span.failed(status)
                fair = not cut_short or limit >= call.timeout / 2
                if fair and not self._late(started, limit):
                    permit.failure()
                if cut_short:
                    raise DeadlineExceeded(self.name, sent=True) from None
                raise PeerUnavailable(self.name, f"no answer within {limit:g} s") from None
            except httpx2.TransportError as exc:
                status = _reason(exc)
                span.failed(status)
                raise self._transport_failure(call, permit, exc, started) from exc
            finally:
                self._metrics.attempt(
                    self.name, call.method, status, self._clock.monotonic() - started
                )

    def _judge(self, permit: Permit, response: httpx2.Response) -> httpx2.Response:
        status = response.status_code
        if status < SERVER_ERROR or status == NOT_IMPLEMENTED:
            permit.success()
        else:
            permit.failure()
        if status < SERVER_ERROR and status != TOO_MANY_REQUESTS:
            return response
        retry_after = parse_retry_after(response.headers.get("Retry-After"), self._clock)
        fault = PeerFault(self.name, status, retry_after=retry_after)
        if status in RETRIED_STATUSES:
            raise _Retry(fault, retry_after or 0.0)
        raise fault

    def _transport_failure(
        self, call: _Call, permit: Permit, exc: httpx2.TransportError, started: float
    ) -> Exception:
        if isinstance(exc, ResponseTooLargeError):
            permit.failure()
            return PeerFault(self.name, 502, f"answered with {exc}")
        stale = isinstance(exc, ClosedBeforeResponseError)
        if stale and call.idempotent and not call.stale_forgiven:
            call.stale_forgiven = (
                True  # no verdict: the peer may only have closed an idle connection
            )
            return _Retry(PeerUnavailable(self.name, str(exc)), at_once=True)
        connect_timeout = self._settings.peer_connect_timeout_seconds
        timed_out = isinstance(exc, httpx2.TimeoutException)
        if not (timed_out and self._late(started, connect_timeout)):
            permit.failure()
        error = PeerUnavailable(self.name, str(exc))
        connect = isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout)
        return _Retry(error) if connect or stale else error

    def _late(self, started: float, limit: float) -> bool:
        """Return whether the end of a wait of `limit` seconds was noticed much too late."""
        return self._clock.monotonic() - started > limit + LATE_SECONDS

    def _delay(self, call: _Call, retry: _Retry) -> float | None:
        """Return the seconds to wait before the next attempt, or None for no further attempt."""
        if not call.idempotent:
            return None
        if retry.at_once:
            return 0.0
        tried = call.attempts - call.stale_forgiven
        if tried > self._settings.peer_retries:
            return None
        delay = max(full_jitter(tried - 1, self._rng), retry.retry_after)
        left = deadlines.remaining(self._clock)
        longest = self._settings.peer_timeout_seconds if left is None else left - MIN_BUDGET
        if delay > longest or not self._budget.withdraw():
            return None
        return delay

    async def _token(self, call: _Call) -> str | None:
        if not call.auth or self._tokens is None:
            return None
        self._limit(call)  # no time left: do not even ask for a token
        left = deadlines.remaining(self._clock)
        try:
            async with asyncio.timeout(left):
                return await self._tokens.get()
        except TimeoutError:
            raise DeadlineExceeded(self.name, sent=False) from None

    def _limit(self, call: _Call) -> tuple[float, bool]:
        """Return the seconds for this attempt, and whether the caller's deadline shortened it."""
        left = deadlines.remaining(self._clock)
        if left is None or left >= call.timeout:
            return call.timeout, False
        if left < MIN_BUDGET:
            self._metrics.attempt(self.name, call.method, "deadline", None)
            raise DeadlineExceeded(self.name, sent=call.attempts > 0)
        return left, True

    def _breaker_changed(self, old: BreakerState, new: BreakerState) -> None:
        self._metrics.state(self.name, new)
        level = self._log.warning if new is BreakerState.OPEN else self._log.info
        level("circuit breaker changed", peer=self.name, old=old.name.lower(), new=new.name.lower())


class _Retry(Exception):  # noqa: N818  (control flow inside this module, never seen outside)
    """An attempt failed with `error`, and another one may succeed."""

    def __init__(
        self,
        error: PeerUnavailable | PeerFault,
        retry_after: float = 0.0,
        *,
        at_once: bool = False,
    ) -> None:
        self.error = error
        self.retry_after = retry_after
        self.at_once = at_once
        super().__init__(str(error))


def _reason(exc: httpx2.TransportError) -> str:
    if isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "connect"
    if isinstance(exc, httpx2.TimeoutException):
        return "timeout"
    if isinstance(exc, httpx2.NetworkError):
        return "reset"
    return "protocol"


__all__ = [
    "DeadlineExceeded",
    "Peer",
    "PeerError",
    "PeerFault",
    "PeerUnavailable",
    "TokenSource",
]
