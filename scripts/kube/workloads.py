"""The workloads of a release: how far a rollout is, and why a pod is not well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from scripts.kube.cluster import TIMEOUT, Cluster, labels

INSTANCE = "app.kubernetes.io/instance"
PART_OF = "app.kubernetes.io/part-of"
REVISION = "deployment.kubernetes.io/revision"

# What a pod does not get out of by itself. A crash is one after the second restart.
_HOPELESS = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"})
_REPEATED = frozenset({"CrashLoopBackOff", "CreateContainerConfigError", "RunContainerError"})
_RESTARTS = 2
_LOG_LINES = 4


@dataclass(frozen=True)
class Rollout:
    """How far one workload is: `ready` of `desired` pods run the newest version."""

    release: str
    kind: str
    name: str
    desired: int
    ready: int
    old: int
    failed: str = ""

    @property
    def done(self) -> bool:
        """Say whether all pods are new and ready, and no old one is left."""
        return not self.failed and self.ready >= self.desired and not self.old


def rollouts(cluster: Cluster, namespace: str) -> list[Rollout]:
    """Return the workloads of the platform."""
    selector = labels({PART_OF: "slipway"})
    deployments = cluster.apps.list_namespaced_deployment(
        namespace, label_selector=selector, _request_timeout=TIMEOUT
    )
    sets = cluster.apps.list_namespaced_stateful_set(
        namespace, label_selector=selector, _request_timeout=TIMEOUT
    )
    found = [
        *(_deployment(cluster, item) for item in deployments.items),
        *(_stateful_set(item) for item in sets.items),
    ]
    return sorted(found, key=lambda rollout: (rollout.release, rollout.name))


def _deployment(cluster: Cluster, item: Any) -> Rollout:
    status, desired = item.status, item.spec.replicas or 0
    seen = (status.observed_generation or 0) >= item.metadata.generation
    updated = status.updated_replicas or 0
    # `available` counts old pods too: of the new ones, at least this many are.
    old = (status.replicas or 0) - updated
    ready = min(max((status.available_replicas or 0) - old, 0), updated) if seen else 0
    failed = ""
    for condition in status.conditions or ():
        if condition.type == "Progressing" and condition.status == "False" and seen:
            failed = condition.message
    if seen and ready < desired and not failed:
        failed = _stuck(cluster, item)
    return Rollout(
        _release(item), "Deployment", item.metadata.name, desired, ready, old if seen else 1, failed
    )


def _stateful_set(item: Any) -> Rollout:
    status, desired = item.status, item.spec.replicas or 0
    seen = (status.observed_generation or 0) >= item.metadata.generation
    current = status.update_revision == status.current_revision
    ready = (status.ready_replicas or 0) if current else (status.updated_replicas or 0)
    old = 0 if current else desired - (status.updated_replicas or 0)
    return Rollout(
        _release(item), "StatefulSet", item.metadata.name, desired, ready if seen else 0, old
    )


def _release(item: Any) -> str:
    return str((item.metadata.labels or {}).get(INSTANCE, item.metadata.name))


def _stuck(cluster: Cluster, deployment: Any) -> str:
    """Return why a pod of the newest version will not become ready, or nothing."""
    newest = (deployment.metadata.annotations or {}).get(REVISION)
    namespace = deployment.metadata.namespace
    selector = labels(deployment.spec.selector.match_labels)
    sets: Any = cluster.apps.list_namespaced_replica_set(
        namespace, label_selector=selector, _request_timeout=TIMEOUT
    )
    for replica_set in sets.items:
        if (replica_set.metadata.annotations or {}).get(REVISION) != newest:
            continue
        template = replica_set.metadata.labels["pod-template-hash"]
        newest_pods: Any = cluster.core.list_namespaced_pod(
            namespace,
            label_selector=f"{selector},pod-template-hash={template}",
            _request_timeout=TIMEOUT,
        )
        for pod in newest_pods.items:
            if told := _hopeless(pod):
                return f"pod {pod.metadata.name}: {told}"
    return ""


def _hopeless(pod: Any) -> str:
    for container in _containers(pod):
        waiting = container.state.waiting
        if waiting is None:
            continue
        repeated = waiting.reason in _REPEATED and container.restart_count >= _RESTARTS
        broken = waiting.reason == "CreateContainerConfigError" and "not found" in (
            waiting.message or ""
        )
        if waiting.reason in _HOPELESS or repeated or broken:
            return f"{waiting.reason}: {waiting.message or ''}".rstrip(": ")
    return ""


def stuck_hook(cluster: Cluster, namespace: str, release: str) -> str:
    """Return why a hook's pod of a release will never run, or nothing."""
    for pod in pods(cluster, namespace, release):
        owners = pod.metadata.owner_references or ()
        if any(owner.kind == "Job" for owner in owners) and (told := _hopeless(pod)):
            return f"pod {pod.metadata.name}: {told}"
    return ""


def _containers(pod: Any) -> Iterable[Any]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def pods(cluster: Cluster, namespace: str, release: str | None = None) -> list[Any]:
    """Return the pods of a release, or of the platform; hook and test pods too."""
    selector = labels({INSTANCE: release} if release else {PART_OF: "slipway"})
    return list(
        cluster.core.list_namespaced_pod(
            namespace, label_selector=selector, _request_timeout=TIMEOUT
        ).items
    )


def unwell(cluster: Cluster, namespace: str, release: str | None = None) -> list[str]:
    """Return what is wrong with each pod that is not well, with its last events and log lines."""
    told: list[str] = []
    for pod in pods(cluster, namespace, release):
        state = condition(pod)
        if state in {"Running", "Completed", "Terminating"}:
            continue
        told.append(f"pod {pod.metadata.name}: {state}")
        told += [f"  {line}" for line in _details(cluster, pod)]
    return told


def condition(pod: Any) -> str:
    """Return the state of a pod in a word, as `kubectl get pods` does."""
    if pod.metadata.deletion_timestamp is not None:
        return "Terminating"
    for container in _containers(pod):
        if container.state.waiting is not None:
            return str(container.state.waiting.reason)
        ended = container.state.terminated
        if ended is not None and ended.exit_code:
            return str(ended.reason or f"exit code {ended.exit_code}")
    if pod.status.phase == "Succeeded":
        return "Completed"
    ready = next((c for c in pod.status.conditions or () if c.type == "Ready"), None)
    if pod.status.phase == "Running" and ready is not None and ready.status != "True":
        return "NotReady"
    return str(pod.status.phase)


def _details(cluster: Cluster, pod: Any) -> list[str]:
    name, namespace = pod.metadata.name, pod.metadata.namespace
    events = cluster.core.list_namespaced_event(
        namespace, field_selector=f"involvedObject.name={name}", _request_timeout=TIMEOUT
    ).items
    warnings = [event for event in events if event.type == "Warning"]
    lines = [
        f"{event.reason}: {' '.join((event.message or '').split())}" for event in warnings[-2:]
    ]
    restarted = any(container.restart_count for container in _containers(pod))
    for previous in (False, True) if restarted else (False,):
        try:
            log = cluster.core.read_namespaced_pod_log(
                name, namespace, tail_lines=_LOG_LINES, previous=previous, _request_timeout=TIMEOUT
            )
        except ApiException:
            continue  # it has not started, or several containers: nothing to show
        if log and log.strip():
            lines += [f"log: {line}" for line in log.strip().splitlines()]
            break
    return lines


def summary(found: Sequence[Rollout]) -> str:
    """Return the state of several rollouts in one line."""
    return ", ".join(f"{each.name} {each.ready}/{each.desired}" for each in found)
