"""What auth counts beside the metrics of the chassis."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """The counters and gauges of one application."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        key_age: Callable[[], float],
        hashes_waiting: Callable[[], float],
    ) -> None:
        self.signups = Counter(
            "auth_signups", "Sign-ups by outcome", ["outcome"], registry=registry
        )
        self.logins = Counter(
            "auth_logins", "Logins by method and outcome", ["method", "outcome"], registry=registry
        )
        self.lockouts = Counter(
            "auth_lockouts", "Login attempts refused because of a lock", registry=registry
        )
        self.tokens = Counter(
            "auth_tokens_issued", "Access tokens issued by grant", ["grant"], registry=registry
        )
        self.refusals = Counter(
            "auth_refresh_refusals",
            "Refresh tokens refused, by reason; reused means a token was stolen or leaked",
            ["reason"],
            registry=registry,
        )
        self.exchanges = Counter(
            "auth_api_key_exchanges", "API keys presented, by outcome", ["outcome"],
            registry=registry,
        )  # fmt: skip
        age = Gauge(
            "auth_signing_key_age_seconds", "Time the active key has signed", registry=registry
        )
        age.set_function(key_age)
        waiting = Gauge(
            "auth_password_hashes_waiting", "Hashes that wait for a thread", registry=registry
        )
        waiting.set_function(hashes_waiting)
