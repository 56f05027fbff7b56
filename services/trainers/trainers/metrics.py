"""What Prometheus is told about trainers."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge


class CommandMetrics:
    """The counters of the write side: commands by their type and what became of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commands = Counter(
            "trainers_commands_total",
            "Commands that were carried out, had nothing to do, or were refused.",
            ["command", "outcome"],
            registry=registry,
        )


class ProjectionMetrics:
    """The state of the projection, as each process of the read side sees it.

    The gauges describe the database: every replica shows the same, so queries take the maximum.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag_events = Gauge(
            "projection_lag_events",
            "Events of the log that the read model does not show yet.",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "projection_lag_seconds",
            "Age of the oldest event that the read model does not show yet; 0 without one.",
            registry=registry,
        )
        for gauge in (self.lag_events, self.lag_seconds):
            gauge.set(math.nan)  # not known before the first look, which is not the same as 0
        self.projected = Counter(
            "projection_events_total",
            "Events that this process brought into the read model.",
            registry=registry,
        )
        self.failures = Counter(
            "projection_failures_total",
            "Batches that were given up because an event could not be projected.",
            registry=registry,
        )
