"""Each alert on a symptom, by Prometheus itself: what makes it fire, and what must not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.observability.promtool import alerts, check_rules, needs_promtool, series

pytestmark = needs_promtool

Series = list[dict[str, str]]


def of(job: str, **more: str) -> dict[str, str]:
    """Return the labels of a target."""
    return {"job": job, "namespace": "slipway", "instance": f"{job}-a", **more}


@dataclass
class Case:
    """What raises an alert and what comes close; a sample a minute.

    `summary` and `labels` (by default the job) are those of the alert that fires; `before` is a
    time at which it does not yet, because of its `for`.
    """

    fires: Series
    silent: list[Series]
    owner: str
    summary: str
    at: str
    before: str = ""
    service: str = "orders"
    labels: dict[str, str] | None = None


def histogram(name: str, bounds: dict[str, float], job: str) -> Series:
    """Return a histogram that grows by 100 a minute, cumulated by the shares of its bounds."""
    return [
        *(
            series(f"{name}_bucket", f"0+{100 * share:g}x40", le=le, **of(job))
            for le, share in bounds.items()
        ),
        series(f"{name}_count", "0+100x40", **of(job)),
    ]


def upstream(total: int, cluster: str = "items", **faults: int) -> Series:
    """Return the gateway's counters for a service: so many a minute."""
    kinds = (
        "cx_connect_fail", "cx_none_healthy", "rq_pending_overflow", "rq_timeout", "rq_rx_reset",
    )  # fmt: skip
    labels = of("gateway", envoy_cluster_name=cluster)
    return [
        series("envoy_cluster_upstream_rq_total", f"0+{total}x40", **labels),
        *(
            series(f"envoy_cluster_upstream_{kind}", f"0+{faults.get(kind, 0)}x40", **labels)
            for kind in kinds
        ),
    ]


def limited(refused: int, asked: int) -> Series:
    """Return the counters of the general rate limit: so many a minute."""
    labels = of("gateway", envoy_local_http_ratelimit_prefix="clients")
    return [
        series("envoy_http_local_rate_limit_rate_limited", f"0+{refused}x40", **labels),
        series("envoy_http_local_rate_limit_enabled", f"0+{asked}x40", **labels),
    ]


def hpa(now: str, most: int = 10, least: int = 2, name: str = "orders") -> Series:
    """Return what kube-state-metrics says of an autoscaler."""
    labels = of("kube-state-metrics", horizontalpodautoscaler=name)
    prefix = "kube_horizontalpodautoscaler"
    return [
        series(f"{prefix}_status_current_replicas", now, **labels),
        series(f"{prefix}_spec_max_replicas", f"{most}x40", **labels),
        series(f"{prefix}_spec_min_replicas", f"{least}x40", **labels),
    ]


def breaker(state: str, calls: str) -> Series:
    """Return a breaker of orders, and its calls."""
    return [
        series("circuit_breaker_state", state, peer="items", **of("orders")),
        series("http_client_requests_total", calls, peer="items", status="open", **of("orders")),
    ]


def gauge(metric: str, values: str, job: str = "orders", **more: str) -> Series:
    """Return one series of a target."""
    return [series(metric, values, **of(job, **more))]


def waiting(container: str, reason: str = "CrashLoopBackOff", values: str = "1x40") -> Series:
    """Return a container that waits."""
    name = "kube_pod_container_status_waiting_reason"
    more = {"container": container, "pod": f"{container}-1", "reason": reason}
    return gauge(name, values, "kube-state-metrics", **more)


def progressing(status: str, value: int, deployment: str = "items") -> Series:
    """Return the condition of a Deployment."""
    more = {"deployment": deployment, "condition": "Progressing", "status": status}
    return gauge("kube_deployment_status_condition", f"{value}x40", "kube-state-metrics", **more)


def connections(*used: int) -> Series:
    """Return how many of 200 connections some databases use."""
    job = "postgresql-exporter"
    return [
        *gauge("pg_settings_max_connections", "200x40", job),
        *(
            one
            for number, each in enumerate(used)
            for one in gauge("pg_stat_database_numbackends", f"{each}x40", job, datname=str(number))
        ),
    ]


def deployment(wanted: int, available: int, name: str = "orders") -> Series:
    """Return what kube-state-metrics says of the replicas of a Deployment."""
    prefix, job = "kube_deployment", "kube-state-metrics"
    more = {"deployment": name}
    return [
        *gauge(f"{prefix}_spec_replicas", f"{wanted}x40", job, **more),
        *gauge(f"{prefix}_status_replicas_available", f"{available}x40", job, **more),
    ]


TWO_UP = [*gauge("up", "1x40"), *gauge("up", "0x40", "orders", pod="orders-b")]
DAY = 86400

CASES = {
    "ServiceDown": Case(
        gauge("up", "1x5 0x30"),
        [
            TWO_UP, gauge("up", "1x5 0x1 1x30"), gauge("up", "0x40", "somebody-else"),
            deployment(2, 1), deployment(0, 0), deployment(1, 0, "somebody-else"),
        ],
        "commerce", "orders: no replica serves", "9m", before="7m",
    ),
    "TargetDown": Case(
        [*gauge("up", "1x40"), *gauge("up", "0x40", "info", pod="info-b")],
        [gauge("up", "0x5 1x1 0x5 1x30"), gauge("up", "1x40")],
        "platform", "info: info-a does not answer Prometheus", "12m", before="8m",
        service="info", labels={"job": "info", "instance": "info-a", "pod": "info-b"},
    ),
    "BreakerOpen": Case(
        # It tries again each minute, in vain: half-open now and then.
        breaker("0x2 2x3 1x0 2x3 1x0 2x20", "0+10x40"),
        [breaker("0x2 2x2 0x30", "0+10x40"), breaker("2x40", "5x40"), breaker("0x40", "0+10x40")],
        "commerce", "orders: calls to items are refused by the circuit breaker", "12m",
        before="6m", labels={"job": "orders", "peer": "items"},
    ),
    "OutboxStuck": Case(
        gauge("outbox_oldest_age_seconds", "0+60x30"),
        [gauge("outbox_oldest_age_seconds", "0+60x8 0x30"),
         gauge("outbox_oldest_age_seconds", "299x40")],
        "commerce", "orders: the oldest event has waited 15m 0s", "15m", before="10m",
    ),
    "DeadLetters": Case(
        gauge("outbox_dead_letters", "0x5 2x30"),
        [gauge("outbox_dead_letters", "0x40")],
        "commerce", "orders: 2 events were given up on", "8m", before="5m",
    ),
    "OrdersStuck": Case(
        gauge("orders_pending_oldest_age_seconds", "0+60x30"),
        [gauge("orders_pending_oldest_age_seconds", "0+60x14 0x30"),
         gauge("orders_pending_oldest_age_seconds", "600x40")],
        "commerce", "orders: the oldest unsettled order is 20m 0s old", "20m", before="15m",
    ),
    "ProjectionBehind": Case(
        gauge("projection_lag_seconds", "0+60x30", "trainers-queries"),
        [gauge("projection_lag_seconds", "0+60x5 0x30", "trainers-queries"),
         gauge("projection_lag_seconds", "60x40", "trainers-queries")],
        "coaching", "trainers-queries: the read model is 15m 0s behind", "15m", before="6m",
        service="trainers-queries",
    ),
    "ModelQuarantined": Case(
        gauge("predict_models_quarantined", "0x5 2x30", "predict"),
        [gauge("predict_models_quarantined", "0x5 1x3 0x30", "predict")],
        "data-science", "predict: 2 models are refused", "12m", before="8m", service="predict",
    ),
    "ModelDrift": Case(
        gauge("predict_feature_drift", "0.1x5 0.4x90", "predict", model="wine", feature="hue"),
        [gauge("predict_feature_drift", "0.4x50 0.1x50", "predict", model="wine", feature="hue"),
         gauge("predict_feature_drift", "0.25x90", "predict", model="wine", feature="hue")],
        "data-science", "predict: hue of wine is not as in training", "70m", before="60m",
        service="predict", labels={"job": "predict", "model": "wine", "feature": "hue"},
    ),
    "WorkerRestarting": Case(
        gauge("background_worker_restarts_total", "0+1x30", worker="outbox-relay"),
        [gauge("background_worker_restarts_total", "0x10 1x10 2x30", worker="outbox-relay")],
        "commerce", "orders: the background loop outbox-relay fails again and again", "16m",
        before="3m", labels={"job": "orders", "worker": "outbox-relay"},
    ),
    "DatabasePoolExhausted": Case(
        histogram("db_pool_wait_seconds", {"0.1": 0.75, "+Inf": 1}, "items"),
        [histogram("db_pool_wait_seconds", {"0.1": 0.96, "+Inf": 1}, "items"),
         # Almost nobody asks: one slow session in a minute is half of all.
         [series("db_pool_wait_seconds_bucket", "0+1x40", le="0.1", **of("items")),
          series("db_pool_wait_seconds_count", "0+2x40", **of("items"))]],
        "catalogue", "items: 25% of the sessions waited for a connection", "10m", before="4m",
        service="items",
    ),
    "DatabaseDown": Case(
        gauge("pg_up", "1x5 0x30", "postgresql-exporter"),
        [gauge("pg_up", "1x5 0x1 1x30", "postgresql-exporter")],
        "platform", "postgresql-exporter: PostgreSQL does not answer", "9m", before="6m",
        service="postgresql-exporter", labels={"job": "postgresql-exporter"},
    ),
    "DatabaseConnectionsHigh": Case(
        connections(90, 80),
        [connections(90, 70), connections(0, 0)],
        "platform", "postgresql-exporter: 85% of PostgreSQL's connections are in use", "7m",
        before="4m", service="postgresql-exporter", labels={"job": "postgresql-exporter"},
    ),
    "EventLoopLagHigh": Case(
        [*histogram("event_loop_lag_seconds", {"0.25": 0.9, "0.5": 1, "+Inf": 1}, "auth"),
         *histogram("event_loop_lag_seconds", {"0.25": 1, "0.5": 1, "+Inf": 1}, "info")],
        [histogram("event_loop_lag_seconds", {"0.25": 0.995, "0.5": 1, "+Inf": 1}, "auth")],
        "identity", "auth: the event loop is 475ms late", "15m", before="9m", service="auth",
    ),
    "SigningKeyOld": Case(
        gauge("auth_signing_key_age_seconds", f"{91 * DAY}x80", "auth"),
        [gauge("auth_signing_key_age_seconds", f"{89 * DAY}x80", "auth")],
        "identity", "auth: the key that signs tokens is 91d 0h 0m 0s old", "70m", before="50m",
        service="auth",
    ),
    "AutoscalerAtMaximum": Case(
        hpa("2x5 10x30"),
        [hpa("9x40"), hpa("10x10 8x1 10x10"), hpa("1x40", most=1, least=1),
         hpa("10x40", name="somebody-else")],
        "commerce", "orders: all 10 replicas that its autoscaler may start are running", "22m",
        before="18m", labels={"horizontalpodautoscaler": "orders"},
    ),
    "PodCrashLooping": Case(
        # Between two waits the container runs for a moment.
        waiting("orders", values="0x2 1x2 0x1 1x2 0x1 1x30"),
        [waiting("orders", "ContainerCreating"), waiting("somebody-else"),
         waiting("orders", values="0x40")],
        "commerce", "orders: pod orders-1 crashes again and again", "10m", before="5m",
        labels={"container": "orders", "pod": "orders-1"},
    ),
    "RolloutStuck": Case(
        progressing("false", 1),
        [progressing("true", 1), progressing("false", 0), progressing("false", 1, "other")],
        "catalogue", "items: the rollout does not go on", "3m", service="items",
        labels={"deployment": "items"},
    ),
    "GatewayUpstreamFailures": Case(
        # Nothing gets through: no request is ever sent.
        upstream(0, cx_connect_fail=20),
        [upstream(1000, cx_connect_fail=20), upstream(1, rq_timeout=1), upstream(0),
         upstream(1000), upstream(0, "_otlp", cx_connect_fail=20)],
        "catalogue", "gateway: items is not reached (100% of the requests)", "10m", before="2m",
        service="items", labels={"envoy_cluster_name": "items"},
    ),
    "RateLimitStorm": Case(
        limited(600, 1200),
        [limited(600, 12000), limited(60, 120), limited(0, 0)],
        "platform", "gateway: 50% of the requests under the limit clients get a 429", "15m",
        before="9m", service="gateway",
        labels={"envoy_local_http_ratelimit_prefix": "clients"},
    ),
    "CertificateNearExpiry": Case(
        gauge("certmanager_certificate_expiration_timestamp_seconds",
              f"{10 * DAY + 70 * 60}x80", "cert-manager", name="slipway-tls"),
        [gauge("certmanager_certificate_expiration_timestamp_seconds", f"{20 * DAY}x80",
               "cert-manager", name="slipway-tls"),
         # Envoy without a certificate.
         gauge("envoy_server_days_until_first_cert_expiring", "4294967295x80", "gateway")],
        "platform", "gateway: a certificate expires in 10 days", "70m", before="50m",
        service="gateway", labels={"name": "slipway-tls"},
    ),
}  # fmt: skip


def names() -> list[str]:
    """Return the alerts of the rule file."""
    return [alert for file, alert, _ in alerts() if file == "symptoms"]


def test_every_symptom_has_a_case():
    assert sorted(names()) == sorted(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_fires_and_stays_silent(name: str, tmp_path: Path):
    """With the labels, owner and words that reach a person; not before its time, not for less."""
    case, rule = CASES[name], alerts()["symptoms", name, ""]
    expected = {
        "exp_labels": {
            "namespace": "slipway",
            "service": case.service,
            "owner": case.owner,
            "severity": rule["labels"]["severity"],
            **({"job": case.service} if case.labels is None else case.labels),
        },
        "exp_annotations": {**rule["annotations"], "summary": case.summary},
    }

    def test(given: Series, *checks: tuple[str, list[Any]]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": given,
            "alert_rule_test": [
                {"eval_time": at, "alertname": name, "exp_alerts": found} for at, found in checks
            ],
        }

    checks = [(case.at, [expected])]
    if case.before:
        checks.append((case.before, []))
    tests = [test(case.fires, *checks)]
    tests += [test(given, (case.at, []), ("30m", [])) for given in case.silent]
    check_rules(tmp_path, tests, "symptoms")


@pytest.mark.parametrize("targets", [[], gauge("up", "0x40")], ids=["no pod", "dead pods"])
def test_a_service_without_a_pod_is_down_too(tmp_path: Path, targets: Series):
    """Pods that wait for a node are no targets; who has both signs wakes somebody once."""
    name = "ServiceDown"
    expected = {
        "exp_labels": {
            "service": "orders", "owner": "commerce", "severity": "page", "job": "orders",
            "namespace": "slipway",
        },
        "exp_annotations": {
            **alerts()["symptoms", name, ""]["annotations"],
            "summary": "orders: no replica serves",
        },
    }  # fmt: skip
    test = {
        "interval": "1m",
        "input_series": [*deployment(2, 0), *targets],
        "alert_rule_test": [{"eval_time": "5m", "alertname": name, "exp_alerts": [expected]}],
    }
    check_rules(tmp_path, [test], "symptoms")


def test_the_gateways_own_certificate_counts_too(tmp_path: Path):
    """Where Envoy holds one itself; the day count of another proxy is not ours."""
    metric = "envoy_server_days_until_first_cert_expiring"
    name = "CertificateNearExpiry"
    expected = {
        "exp_labels": {
            "service": "gateway", "owner": "platform", "severity": "ticket",
            "job": "gateway", "namespace": "slipway",
        },
        "exp_annotations": {
            **alerts()["symptoms", name, ""]["annotations"],
            "summary": "gateway: a certificate expires in 5 days",
        },
    }  # fmt: skip
    test = {
        "interval": "1m",
        "input_series": [*gauge(metric, "5x80", "gateway"), *gauge(metric, "5x80", "other")],
        "alert_rule_test": [{"eval_time": "70m", "alertname": name, "exp_alerts": [expected]}],
    }
    check_rules(tmp_path, [test], "symptoms")
