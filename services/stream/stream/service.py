"""The parts of the service in one process, put together when it starts."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends

from chassis.problems import Problem
from chassis.runtime import Runtime, RuntimeDep
from stream.connections import RETRY_SECONDS, Connections
from stream.credentials import Tickets
from stream.entries import Entry
from stream.history import History
from stream.hub import Hub
from stream.log import Log
from stream.memory_log import MemoryLog
from stream.metrics import StreamMetrics
from stream.session import Session
from stream.settings import Settings
from stream.subscriber import Subscriber
from stream.valkey_log import ValkeyLog

_KEY = "stream"


class Streams:
    """The hub, its log, and the open streams."""

    def __init__(self, runtime: Runtime) -> None:
        settings = cast("Settings", runtime.settings)
        self.runtime = runtime
        self.settings = settings
        self.metrics = metrics_of(runtime)
        self.hub = Hub(
            History(settings.history_messages),
            self.metrics,
            runtime.clock,
            runtime.tracer_provider,
            burst_messages=max(settings.queue_messages // 4, 1),
            burst_bytes=settings.queue_bytes // 4,
        )
        self.log: Log = _log(runtime, settings, self.hub)
        self.tickets = Tickets(self.log, settings.ticket_seconds)
        self.connections = Connections(runtime, settings, self.metrics)
        runtime.extras[_KEY] = self

    def subscriber(self) -> Subscriber:
        """Return the queue of a new client."""
        return Subscriber(
            self.hub,
            messages=self.settings.queue_messages,
            bytes_=self.settings.queue_bytes,
            policy=self.settings.slow_clients,
            on_dropped=self._count_dropped,
        )

    def session(self, subscriber: Subscriber, subject: str) -> Session:
        """Return what the client `subject` may ask, answered through `subscriber`."""
        return Session(
            self.hub,
            subscriber,
            subject,
            self.runtime.clock,
            most_topics=self.settings.topics_per_connection,
        )

    def _count_dropped(self, entry: Entry) -> None:
        self.metrics.dropped[entry.kind].inc()


def _log(runtime: Runtime, settings: Settings, hub: Hub) -> Log:
    if not settings.valkey_url:
        return MemoryLog(hub, runtime.clock, dedupe_seconds=settings.dedupe_seconds)
    return ValkeyLog(
        settings.valkey_url,
        hub,
        runtime.clock,
        length=settings.history_messages,
        dedupe_seconds=settings.dedupe_seconds,
        timeout=settings.valkey_timeout_seconds,
    )


def metrics_of(runtime: Runtime) -> StreamMetrics:
    """Return the metrics of `runtime`, which a registry takes once."""
    found = runtime.extras.get("stream_metrics")
    if not isinstance(found, StreamMetrics):
        found = runtime.extras["stream_metrics"] = StreamMetrics(runtime.registry)
    return found


def streams_of(runtime: Runtime) -> Streams:
    """Return the parts of the running service."""
    return cast("Streams", runtime.extras[_KEY])


async def _streams(runtime: RuntimeDep) -> Streams:
    return streams_of(runtime)


StreamsDep = Annotated[Streams, Depends(_streams)]


def unavailable(detail: str) -> Problem:
    """Return the problem of a log that does not answer."""
    return Problem(503, detail=detail, headers={"Retry-After": str(int(RETRY_SECONDS))})
