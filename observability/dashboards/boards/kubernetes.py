"""Rollouts and autoscaling: over kube-state-metrics and cAdvisor, so in a cluster only."""

from __future__ import annotations

from observability.dashboards.boards.queries import NAMESPACES, SERVICES
from observability.dashboards.library import (
    BYTES,
    CORES,
    COUNT,
    SHARE,
    Board,
    Column,
    Query,
    graph,
    number,
    table,
)

OF = 'namespace=~"$namespace"'
DEPLOYMENT = f'{OF},deployment=~"$service|gateway"'
CONTAINER = f'{OF},container=~"$service|gateway"'
HPA = f'{OF},horizontalpodautoscaler=~"$service|gateway"'


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-kubernetes",
        "Slipway / Kubernetes",
        "Rollouts, autoscalers and pods, by kube-state-metrics and cAdvisor.",
        {"namespace": NAMESPACES, "service": SERVICES},
        service="$service",
    )
    board.row("Now", *_now())
    board.row("Rollouts", *_rollouts())
    board.row("Autoscaling", *_autoscaling())
    board.row("Pods", *_pods())
    return board


def _now() -> list[object]:
    unavailable = f"sum(kube_deployment_status_replicas_unavailable{{{DEPLOYMENT}}})"
    stuck = f'{DEPLOYMENT},condition="Progressing",status="false"'
    waiting = f'{CONTAINER},reason="CrashLoopBackOff"'
    return [
        number("Replicas missing", "Wanted and not available. Not 0 outside of a rollout: see "
               "the pods.", COUNT, Query(unavailable), limits=(1, 3), wide=6),
        number("Rollouts stuck", "New pods did not become ready in time. Not 0: "
               "docs/runbooks/RolloutStuck.md.", COUNT,
               Query(f"count(kube_deployment_status_condition{{{stuck}}} == 1) or vector(0)"),
               limits=(1, 1), wide=6),
        number("Crash looping", "Containers that end again and again. Not 0: "
               "docs/runbooks/PodCrashLooping.md.", COUNT,
               Query(f"count(kube_pod_container_status_waiting_reason{{{waiting}}} == 1) "
                     "or vector(0)"), limits=(1, 1), wide=6),
        number("Autoscalers at maximum", "No room for more load. For long: "
               "docs/runbooks/AutoscalerAtMaximum.md.", COUNT,
               Query(f"count(kube_horizontalpodautoscaler_status_current_replicas{{{HPA}}} "
                     f">= kube_horizontalpodautoscaler_spec_max_replicas{{{HPA}}}) or vector(0)"),
               limits=(1, 3), wide=6),
    ]  # fmt: skip


def _rollouts() -> list[object]:
    by = "max by (deployment)"
    return [
        table("Deployments", "Updated below wanted: a rollout is under way. For more than five "
              "minutes: docs/runbooks/RolloutStuck.md.",
              [("deployment", "Deployment")],
              [Column("Wanted", COUNT, f"{by} (kube_deployment_spec_replicas{{{DEPLOYMENT}}})"),
               Column("Updated", COUNT,
                      f"{by} (kube_deployment_status_replicas_updated{{{DEPLOYMENT}}})"),
               Column("Available", COUNT,
                      f"{by} (kube_deployment_status_replicas_available{{{DEPLOYMENT}}})"),
               Column("Missing", COUNT,
                      f"{by} (kube_deployment_status_replicas_unavailable{{{DEPLOYMENT}}})",
                      (1, 3))], wide=12),
        graph("Versions that run", "Two lines of one service: a rollout. They cross when half of "
              "the pods are new.", COUNT,
              Query(f'count by (job, version) (build_info{{{OF},job=~"$service"}})',
                    "{{job}} {{version}}"), wide=12),
    ]  # fmt: skip


def _autoscaling() -> list[object]:
    name = "{{horizontalpodautoscaler}}"
    by = "max by (horizontalpodautoscaler)"
    prefix = "kube_horizontalpodautoscaler"
    asked = (
        f'sum by (container) (kube_pod_container_resource_requests{{{CONTAINER},resource="cpu"}})'
    )
    used = (
        "sum by (container) "
        f"(rate(container_cpu_usage_seconds_total{{{CONTAINER}}}[$__rate_interval]))"
    )
    return [
        graph("Replicas", "Now, and what the autoscaler wants. They differ for long: pods cannot "
              "start, or there is no node for them.", COUNT,
              Query(f"{by} ({prefix}_status_current_replicas{{{HPA}}})", f"{name} now"),
              Query(f"{by} ({prefix}_status_desired_replicas{{{HPA}}})", f"{name} wanted")),
        graph("Room to the maximum", "Replicas that may still be added. 0: "
              "docs/runbooks/AutoscalerAtMaximum.md.", COUNT,
              Query(f"{by} ({prefix}_spec_max_replicas{{{HPA}}}) "
                    f"- {by} ({prefix}_status_current_replicas{{{HPA}}})", name),
              limits=(2, 0)),
        graph("CPU used of requested", "What the autoscaler looks at; it aims at 70 %. Above for "
              "long: it is at its maximum, or the request is too small.", SHARE,
              Query(f"{used} / {asked}", "{{container}}"), limits=(0.9, 1.5)),
    ]  # fmt: skip


def _pods() -> list[object]:
    reason = f'{CONTAINER},reason="OOMKilled"'
    throttled = "container_cpu_cfs_throttled_periods_total"
    memory = f"container_memory_working_set_bytes{{{CONTAINER}}}"
    limit = f'kube_pod_container_resource_limits{{{CONTAINER},resource="memory"}}'
    return [
        graph("CPU by pod", "One that stands out gets more than its share, or works for nobody.",
              CORES,
              Query(f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{CONTAINER}}}"
                    "[$__rate_interval]))", "{{pod}}")),
        graph("Memory by pod", "Working set. One that grows alone keeps something that the "
              "others let go.", BYTES,
              Query(f"max by (pod) ({memory})", "{{pod}}")),
        graph("Memory used of the limit", "At 100 % the pod is killed. A slope is a leak; a level "
              "near the top wants a larger limit.", SHARE,
              Query(f"max by (pod, container) ({memory}) / max by (pod, container) ({limit})",
                    "{{pod}}"), limits=(0.8, 0.95)),
        graph("Restarts", "In an hour. Not 0: kubectl logs --previous.", COUNT,
              Query("sum by (container) (increase(kube_pod_container_status_restarts_total"
                    f"{{{CONTAINER}}}[1h]))", "{{container}}"), limits=(1, 3)),
        graph("Killed for lack of memory", "Pods whose last end this was: raise the limit, or find "
              "the leak.", COUNT,
              Query("sum by (container) "
                    f"(kube_pod_container_status_last_terminated_reason{{{reason}}})",
                    "{{container}}"), limits=(1, 2)),
        graph("Throttled", "Share of time slices in which a CPU limit held a pod back. We set no "
              "CPU limit: not 0 means that somebody did.", SHARE,
              Query(f"sum by (pod) (rate({throttled}{{{CONTAINER}}}[$__rate_interval])) / "
                    f"sum by (pod) (rate(container_cpu_cfs_periods_total{{{CONTAINER}}}"
                    "[$__rate_interval]))", "{{pod}}"), limits=(0.05, 0.25)),
        graph("Pods by phase", "Pending for long: no node has room. kubectl describe pod tells "
              "why.", COUNT,
              Query(f'sum by (phase) (kube_pod_status_phase{{{OF},pod=~"($service|gateway)-.*"}})',
                    "{{phase}}"), stacked=True),
    ]  # fmt: skip
