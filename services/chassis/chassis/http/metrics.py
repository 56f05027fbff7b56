"""Metrics of outbound calls. A path is never a label: its values are unbounded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.http.breaker import BreakerState

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HttpClientMetrics:
    """The collectors of one registry, shared by all peers of a process.

    The label `status` is the HTTP status, or why there is none: `connect` (no connection),
    `timeout`, `reset` (connection lost), `protocol` (not understood), `open` (refused by the
    circuit breaker), `deadline` (the caller's budget was spent), `cancelled`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "http_client_requests_total",
            "Attempts to call a peer, retries included.",
            ["peer", "method", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "http_client_request_duration_seconds",
            "Time of one attempt, to the end of the response body.",
            ["peer", "method"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "http_client_retries_total",
            "Attempts after the first one of a call.",
            ["peer"],
            registry=registry,
        )
        self.breaker = Gauge(
            "circuit_breaker_state",
            "State of the circuit breaker: 0 closed, 1 half-open, 2 open.",
            ["peer"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def attempt(self, peer: str, method: str, status: str, seconds: float | None) -> None:
        """Count one attempt; `seconds` is None when nothing was sent."""
        label = method if method in METHODS else "_OTHER"
        self.requests.labels(peer, label, status).inc()
        if seconds is not None:
            self.duration.labels(peer, label).observe(seconds)

    def state(self, peer: str, state: BreakerState) -> None:
        """Show the state of a breaker."""
        self.breaker.labels(peer).set(int(state))
