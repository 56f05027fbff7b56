"""Metrics of the outbox. The gauges describe the table, so every replica shows the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from chassis.runtime import Runtime

_KEY = "chassis.outbox_metrics"


class OutboxMetrics:
    """What the outbox looks like and what became of deliveries."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pending = Gauge("outbox_pending", "Events not yet delivered", registry=registry)
        self._age = Gauge(
            "outbox_oldest_age_seconds", "Age of the oldest undelivered event", registry=registry
        )
        self._dead = Gauge("outbox_dead_letters", "Events given up on", registry=registry)
        self._deliveries = Counter(
            "outbox_deliveries",
            "Deliveries by result: delivered, retry or dead",
            ["type", "outcome"],
            registry=registry,
        )

    @classmethod
    def of(cls, runtime: Runtime) -> OutboxMetrics:
        """Return the metrics of `runtime`, which a registry takes once."""
        metrics = runtime.extras.get(_KEY)
        if not isinstance(metrics, cls):
            metrics = runtime.extras[_KEY] = cls(runtime.registry)
        return metrics

    def count(self, event_type: str, outcome: str) -> None:
        """Count one delivery."""
        self._deliveries.labels(event_type, outcome).inc()

    def observe(self, *, pending: int, dead: int, oldest_age_seconds: float) -> None:
        """Set the gauges."""
        self._pending.set(pending)
        self._dead.set(dead)
        self._age.set(oldest_age_seconds)
