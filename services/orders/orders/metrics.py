"""What Prometheus is told about orders."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class OrderMetrics:
    """The counters and gauges of one process.

    `orders_total` counts once for every order that reaches a status, in the process that brought
    it there. The gauges describe the database: every process reports the same value.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reached = Counter(
            "orders_total", "Orders that reached a status.", ["status"], registry=registry
        )
        self.retries = Counter(
            "orders_saga_retries_total",
            "Saga steps put off because a peer did not answer.",
            ["step"],
            registry=registry,
        )
        self.abandoned = Counter(
            "orders_saga_abandoned_total",
            "Orders rejected because a peer was away longer than the bound.",
            registry=registry,
        )
        self.recovered = Counter(
            "orders_saga_recovered_total",
            "Orders that the worker settled after a request had left them.",
            registry=registry,
        )
        self.pending = Gauge(
            "orders_pending", "Orders that the saga still works on.", registry=registry
        )
        self.oldest = Gauge(
            "orders_pending_oldest_age_seconds",
            "Age of the oldest order that the saga still works on; 0 when there is none.",
            registry=registry,
        )
