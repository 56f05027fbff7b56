"""What Prometheus is told about streams, by transport, kind of topic and reason."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.topics import KINDS

TRANSPORTS = ("websocket", "sse")
REFUSALS = ("capacity", "user_limit", "credentials", "scope", "draining")

_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class StreamMetrics:
    """The counters and gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        connections = Gauge("stream_connections", "Open streams.", ["transport"], registry=registry)
        self.connections = {name: connections.labels(name) for name in TRANSPORTS}
        refused = Counter(
            "stream_connections_refused",
            "Streams that were not opened.",
            ["reason"],
            registry=registry,
        )
        self.refused = {reason: refused.labels(reason) for reason in REFUSALS}
        messages = Counter(
            "stream_messages",
            "Events that clients were sent, or were too slow for.",
            ["topic_kind", "outcome"],
            registry=registry,
        )
        self.delivered = {kind: messages.labels(kind, "delivered") for kind in KINDS}
        self.dropped = {kind: messages.labels(kind, "dropped") for kind in KINDS}
        ingested = Counter(
            "stream_events_ingested",
            "Events that came in, by what became of them.",
            ["topic_kind", "outcome"],
            registry=registry,
        )
        self.stored = {kind: ingested.labels(kind, "stored") for kind in KINDS}
        self.repeated = {kind: ingested.labels(kind, "repeated") for kind in KINDS}
        self.refused_events = {kind: ingested.labels(kind, "refused") for kind in KINDS}
        self.depth = Gauge(
            "stream_queue_depth_max",
            "Events that wait for the slowest client.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.lag = Histogram(
            "stream_lag_seconds",
            "From the moment the log took an event until it was offered to clients here.",
            buckets=_LAGS,
            registry=registry,
        )
        self.live = Gauge(
            "stream_log_up",
            "1 while the log of events answers this process, 0 while it does not.",
            registry=registry,
            multiprocess_mode="livemin",
        )
