"""Alerts on what hurts beside the SLOs: one rule each for all services.

A page is for what users or their orders suffer from now; a ticket waits for working hours. Each
alert has a page of its own, `docs/runbooks/<alert>.md`. The owner of an alert on a service is the
owner that its service.yaml names; everything else belongs to the platform.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from scripts.topology import Topology

PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class Symptom:
    """One alert. `on` is the label of its series that names the service, if one does."""

    name: str
    expr: str
    minutes: int
    severity: Literal["page", "ticket"]
    summary: str
    description: str
    on: str = "job"


def groups(tree: Topology) -> list[dict[str, Any]]:
    """Return the one rule group of the symptoms."""
    rules = [_rule(symptom, tree) for symptom in _symptoms(tree)]
    return [{"name": "symptoms", "interval": "30s", "rules": rules}]


def _rule(symptom: Symptom, tree: Topology) -> dict[str, Any]:
    service = f"{{{{ $labels.{symptom.on} }}}}" if symptom.on else "gateway"
    return {
        "alert": symptom.name,
        "expr": symptom.expr.strip() + "\n" if "\n" in symptom.expr.strip() else symptom.expr,
        "for": f"{symptom.minutes}m",
        "labels": {
            "service": service,
            "owner": _owner(symptom.on, tree),
            "severity": symptom.severity,
        },
        "annotations": {
            "summary": symptom.summary.replace("{service}", service),
            "description": symptom.description,
            "runbook_url": f"docs/runbooks/{symptom.name}.md",
        },
    }


def _owner(label: str, tree: Topology) -> str:
    """Return the owner as a template over the label that names the service."""
    if not label:
        return PLATFORM
    teams: dict[str, list[str]] = {}
    for service in tree:
        if service.slo.owner != PLATFORM:
            teams.setdefault(service.slo.owner, []).append(f'"{service.name}"')
    branches = " else ".join(
        f"if eq $labels.{label} {' '.join(names)} }}}}{team}{{{{"
        for team, names in sorted(teams.items())
    )
    return f"{{{{ {branches} else }}}}{PLATFORM}{{{{ end }}}}"


def _symptoms(tree: Topology) -> Iterable[Symptom]:
    ours = "|".join(sorted([*tree.services, "gateway"]))
    yield from _availability(ours)
    yield from _work()
    yield from _models()
    yield from _saturation()
    yield from _postgresql()
    yield from _kubernetes(ours)
    yield from _edge()


def _availability(ours: str) -> Iterable[Symptom]:
    yield Symptom(
        "ServiceDown",
        f"""
max by (namespace, job) (up{{job=~"{ours}"}}) == 0
or
max by (namespace, job) (label_replace(
  kube_deployment_spec_replicas{{deployment=~"{ours}"}} > 0
    and kube_deployment_status_replicas_available{{deployment=~"{ours}"}} == 0,
  "job", "$1", "deployment", "(.+)"
))
""",
        2,
        "page",
        "{service}: no replica serves",
        "For two minutes not one replica could be scraped, or Kubernetes says that none is "
        "available: pods that cannot be placed are no targets.",
    )
    yield Symptom(
        "TargetDown",
        "up == 0",
        10,
        "ticket",
        "{service}: {{ $labels.instance }} does not answer Prometheus",
        "One target could not be scraped for ten minutes. What it does is not seen, and its share "
        "of the traffic may fail.",
    )
    yield Symptom(
        "BreakerOpen",
        """
max by (namespace, job, peer) (circuit_breaker_state) > 0
and
sum by (namespace, job, peer) (rate(http_client_requests_total[10m])) > 0
""",
        5,
        "ticket",
        "{service}: calls to {{ $labels.peer }} are refused by the circuit breaker",
        "For five minutes the breaker has not closed although there are calls: the peer is away "
        "or too slow, and what needs it is put off or refused.",
    )


def _work() -> Iterable[Symptom]:
    yield Symptom(
        "OutboxStuck",
        "max by (namespace, job) (outbox_oldest_age_seconds) > 300",
        5,
        "page",
        "{service}: the oldest event has waited {{ $value | humanizeDuration }}",
        "Events are stored and nothing is lost, but who should be told is not told.",
    )
    yield Symptom(
        "DeadLetters",
        "max by (namespace, job) (outbox_dead_letters) > 0",
        1,
        "ticket",
        "{service}: {{ $value }} events were given up on",
        "A subscriber refused them or was away for too long. They wait to be replayed by hand.",
    )
    yield Symptom(
        "OrdersStuck",
        "max by (namespace, job) (orders_pending_oldest_age_seconds) > 600",
        5,
        "page",
        "{service}: the oldest unsettled order is {{ $value | humanizeDuration }} old",
        "Accepted orders are neither confirmed nor rejected, and their stock is held.",
    )
    yield Symptom(
        "ProjectionBehind",
        "max by (namespace, job) (projection_lag_seconds) > 60",
        5,
        "page",
        "{service}: the read model is {{ $value | humanizeDuration }} behind",
        "Commands are carried out and nothing is lost, but queries show what was, and whoever "
        "waits for their own write gets 503.",
    )
    yield Symptom(
        "WorkerRestarting",
        "sum by (namespace, job, worker) (increase(background_worker_restarts_total[15m])) > 5",
        0,
        "ticket",
        "{service}: the background loop {{ $labels.worker }} fails again and again",
        "A loop that delivers, recovers or counts was started again more than five times in a "
        "quarter of an hour. While it waits, its process is not ready.",
    )


def _models() -> Iterable[Symptom]:
    yield Symptom(
        "ModelQuarantined",
        "max by (namespace, job) (predict_models_quarantined) > 0",
        5,
        "ticket",
        "{service}: {{ $value }} models are refused",
        "A file is broken, incomplete or not trusted. What it should have replaced serves on; "
        "without that, its model answers 503.",
    )
    yield Symptom(
        "ModelDrift",
        "max by (namespace, job, model, feature) (predict_feature_drift) > 0.25",
        60,
        "ticket",
        "{service}: {{ $labels.feature }} of {{ $labels.model }} is not as in training",
        "For an hour a feature has been spread otherwise than when the model was trained. Its "
        "predictions may be worth less than its card says.",
    )


def _saturation() -> Iterable[Symptom]:
    yield Symptom(
        "DatabasePoolExhausted",
        """
1 - sum by (namespace, job) (rate(db_pool_wait_seconds_bucket{le="0.1"}[5m]))
  / (sum by (namespace, job) (rate(db_pool_wait_seconds_count[5m])) > 0.1)
> 0.05
""",
        5,
        "ticket",
        "{service}: {{ $value | humanizePercentage }} of the sessions waited for a connection",
        "More than 5 % of the database sessions waited longer than 100 ms for a connection.",
    )
    yield Symptom(
        "EventLoopLagHigh",
        """
max by (namespace, job) (
  histogram_quantile(0.99,
    sum by (namespace, job, instance, le) (rate(event_loop_lag_seconds_bucket[5m])))
) > 0.25
""",
        10,
        "ticket",
        "{service}: the event loop is {{ $value | humanizeDuration }} late",
        "One replica runs its timers late: blocking code, or no CPU left. Every request waits.",
    )
    yield Symptom(
        "SigningKeyOld",
        "max by (namespace, job) (auth_signing_key_age_seconds) > 90 * 86400",
        60,
        "ticket",
        "{service}: the key that signs tokens is {{ $value | humanizeDuration }} old",
        "It should be replaced after 90 days. Nothing breaks yet, and rotation needs no restart.",
    )


def _postgresql() -> Iterable[Symptom]:
    """Over the names of postgres_exporter; silent where there is none."""
    yield Symptom(
        "DatabaseDown",
        "max by (namespace, job) (pg_up) == 0",
        2,
        "page",
        "{service}: PostgreSQL does not answer",
        "The exporter has not reached PostgreSQL for two minutes. Services with a database answer "
        "503; what they accepted before is stored.",
    )
    yield Symptom(
        "DatabaseConnectionsHigh",
        """
sum by (namespace, job) (pg_stat_database_numbackends)
/ max by (namespace, job) (pg_settings_max_connections)
> 0.8
""",
        5,
        "ticket",
        "{service}: {{ $value | humanizePercentage }} of PostgreSQL's connections are in use",
        "When all are, new sessions are refused, of every service. More replicas make it worse.",
    )


def _kubernetes(ours: str) -> Iterable[Symptom]:
    """Over the names of kube-state-metrics; silent where there is none."""
    autoscaler = f'{{horizontalpodautoscaler=~"{ours}"}}'
    yield Symptom(
        "AutoscalerAtMaximum",
        f"""
max by (namespace, horizontalpodautoscaler) (
  kube_horizontalpodautoscaler_status_current_replicas{autoscaler}
    >= kube_horizontalpodautoscaler_spec_max_replicas{autoscaler}
  and kube_horizontalpodautoscaler_spec_max_replicas{autoscaler}
    > kube_horizontalpodautoscaler_spec_min_replicas{autoscaler}
)
""",
        15,
        "ticket",
        "{service}: all {{ $value }} replicas that its autoscaler may start are running",
        "There is no room for more load. The next rise makes requests slow, then fail.",
        on="horizontalpodautoscaler",
    )
    waiting = f'{{reason="CrashLoopBackOff",container=~"{ours}"}}'
    yield Symptom(
        "PodCrashLooping",
        f"""
max by (namespace, pod, container) (
  max_over_time(kube_pod_container_status_waiting_reason{waiting}[5m])
) >= 1
""",
        5,
        "ticket",
        "{service}: pod {{ $labels.pod }} crashes again and again",
        "Kubernetes waits longer before each start. During a rollout the old pods go on serving.",
        on="container",
    )
    stuck = f'{{condition="Progressing",status="false",deployment=~"{ours}"}}'
    yield Symptom(
        "RolloutStuck",
        f"max by (namespace, deployment) (kube_deployment_status_condition{stuck}) == 1",
        1,
        "ticket",
        "{service}: the rollout does not go on",
        "The new pods did not become ready in time. The old ones go on serving.",
        on="deployment",
    )


def _edge() -> Iterable[Symptom]:
    """Over Envoy's statistics."""
    # Names that begin with _ are not services: a collector that is away pages nobody.
    of = '{job="gateway",envoy_cluster_name!~"_.*"}'
    faults = "\n  + ".join(
        f"increase(envoy_cluster_upstream_{what}{of}[5m])"
        for what in ("cx_connect_fail", "cx_none_healthy", "rq_pending_overflow", "rq_timeout",
                     "rq_rx_reset")
    )  # fmt: skip
    failures = f"sum by (namespace, envoy_cluster_name) (\n  {faults}\n)"
    requests = (
        "sum by (namespace, envoy_cluster_name) "
        f"(increase(envoy_cluster_upstream_rq_total{of}[5m]))"
    )
    yield Symptom(
        "GatewayUpstreamFailures",
        f"{failures}\n/ ({requests}\n+ {failures})\n> 0.05\nand\n{failures}\n>= 10\n",
        2,
        "page",
        "gateway: {service} is not reached ({{ $value | humanizePercentage }} of the requests)",
        "Connections are refused, reset or time out, or no replica is left. The service's own "
        "errors are not counted here.",
        on="envoy_cluster_name",
    )
    limited, allowed = (
        "sum by (namespace, envoy_local_http_ratelimit_prefix) "
        f'(rate(envoy_http_local_rate_limit_{what}{{job="gateway"}}[5m]))'
        for what in ("rate_limited", "enabled")
    )
    yield Symptom(
        "RateLimitStorm",
        f"{limited}\n/ {allowed}\n> 0.2\nand\n{limited}\n> 5\n",
        10,
        "ticket",
        "gateway: {{ $value | humanizePercentage }} of the requests under the limit "
        "{{ $labels.envoy_local_http_ratelimit_prefix }} get a 429",
        "One client in a loop, an attack, or a limit that is too low for what is normal now.",
        on="",
    )
    yield Symptom(
        "CertificateNearExpiry",
        """
(min by (namespace, name) (certmanager_certificate_expiration_timestamp_seconds) - time())
  / 86400 < 14
or
min by (namespace, job) (envoy_server_days_until_first_cert_expiring{job="gateway"}) < 14
""",
        60,
        "ticket",
        "gateway: a certificate expires in {{ $value | humanize }} days",
        "Afterwards clients refuse to connect. It should have been renewed by itself long ago.",
        on="",
    )
