"""One delivery: an HTTP POST of a CloudEvent, and what its answer means.

- 2xx: delivered.
- 5xx, 401, 403, 404, 408, 409, 425, 429, no answer in time, no connection: tried again. 401, 403
  and 404 are faults of a deployment (keys, scopes, routes), not of the event, and get repaired.
- any other answer: poison. The event is given up at once; trying again cannot help.
- not sent (circuit breaker open, no service token): tried again and not counted as a try, so an
  outage of a subscriber does not use up the tries of every event.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.events.cloudevent import CONTENT_TYPE
from chassis.http.errors import PeerError, PeerFault, PeerUnavailable
from chassis.security.tokens import MissingClientSecretError

if TYPE_CHECKING:
    from chassis.runtime import Runtime

_RETRIED = frozenset({401, 403, 404, 408, 409, 425, 429})
_SUCCESS, _REDIRECT = 200, 300
_MARGIN_SECONDS = 0.5
_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Outcome:
    """What became of one delivery. `error` is for people; `retry_after` is in seconds."""

    delivered: bool
    sent: bool = True
    poison: bool = False
    error: str | None = None
    retry_after: float | None = None


class Delivery:
    """Sends events to subscribers through the runtime's peers: breaker, token, metrics."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        settings = runtime.settings
        self._timeout = settings.peer_timeout_seconds
        # The hard end of a delivery, whatever the client does; leases are built on it.
        self.bound_seconds = (
            settings.peer_connect_timeout_seconds + settings.peer_timeout_seconds + _MARGIN_SECONDS
        )

    async def send(self, subscriber: str, event: str) -> Outcome:
        """Post `event` (structured JSON) to the URL `subscriber`, continuing its trace."""
        document = json.loads(event)
        carrier = {key: document[key] for key in ("traceparent", "tracestate") if key in document}
        parent = TraceContextTextMapPropagator().extract(carrier)
        token = otel_context.attach(parent)
        try:
            tracer = trace.get_tracer("chassis.events", tracer_provider=self._provider())
            with tracer.start_as_current_span(
                f"send {document['type']}",
                kind=trace.SpanKind.PRODUCER,
                attributes={
                    "messaging.operation.type": "send",
                    "cloudevents.event_id": document["id"],
                    "cloudevents.event_type": document["type"],
                },
            ):
                return await self._post(subscriber, event)
        finally:
            otel_context.detach(token)

    def _provider(self) -> trace.TracerProvider:
        # Without tracing of our own the publisher's trace still goes on: a no-op span is the
        # parent it was given.
        return self._runtime.tracer_provider or trace.NoOpTracerProvider()

    async def _post(self, subscriber: str, event: str) -> Outcome:
        url = urlsplit(subscriber)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # A peer of its own: a failing sink must not open the breaker of the service's API.
        name = f"{url.netloc.rpartition('@')[2]}{url.path}"
        try:
            async with asyncio.timeout(self.bound_seconds):
                peer = self._runtime.peer(name, f"{url.scheme}://{url.netloc}")
                response = await peer.request(
                    "POST",
                    path,
                    content=event.encode(),
                    headers={"Content-Type": CONTENT_TYPE},
                    timeout=self._timeout,
                    # The relay has its own retries.
                    idempotent=False,
                )
        except PeerFault as fault:
            return Outcome(
                delivered=False, error=f"answered {fault.status}", retry_after=fault.retry_after
            )
        except PeerUnavailable as away:
            return Outcome(
                delivered=False,
                sent=away.retry_after is None,
                error=short(away),
                retry_after=away.retry_after,
            )
        except MissingClientSecretError as error:
            return Outcome(delivered=False, sent=False, error=short(error))
        except (PeerError, TimeoutError) as error:
            return Outcome(delivered=False, error=short(error))
        status = response.status_code
        if _SUCCESS <= status < _REDIRECT:
            return Outcome(delivered=True)
        return Outcome(delivered=False, poison=status not in _RETRIED, error=f"answered {status}")


def short(error: BaseException) -> str:
    """Return an error as one line that fits the column `last_error`."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text[:_ERROR_LENGTH]
