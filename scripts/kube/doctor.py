"""`make doctor`: is this machine able, and this cluster? Each line that fails says the fix.

Exit code 1 when something that is needed is missing; what is only useful is told and passes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from rich.console import Console
from urllib3.exceptions import HTTPError

from scripts.images import ImageError, find_builder
from scripts.kube.cluster import TIMEOUT, Cluster, connect, reachable, reason
from scripts.kube.deploy import NAMESPACE
from scripts.kube.errors import ToolError
from scripts.kube.helm import helm_version

PYTHON = (3, 11)
KUBERNETES = (1, 30)
SKAFFOLD = (2, 19)
NEEDED_RIGHTS = (
    ("", "namespaces", "create"),
    ("", "secrets", "create"),
    ("", "services", "create"),
    ("", "configmaps", "create"),
    ("", "serviceaccounts", "create"),
    ("apps", "deployments", "create"),
    ("apps", "statefulsets", "create"),
    ("batch", "jobs", "create"),
    ("autoscaling", "horizontalpodautoscalers", "create"),
    ("policy", "poddisruptionbudgets", "create"),
    ("networking.k8s.io", "networkpolicies", "create"),
    ("networking.k8s.io", "ingresses", "create"),
)
# What `make deploy OBSERVE=1` makes besides: roles to find pods, volumes for what was measured.
OBSERVING_RIGHTS = (
    ("", "persistentvolumeclaims", "create"),
    ("rbac.authorization.k8s.io", "roles", "create"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
    ("rbac.authorization.k8s.io", "clusterroles", "create"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "create"),
)
CLUSTER_WIDE = {"namespaces", "clusterroles", "clusterrolebindings"}

Verdict = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and the fix where there is one."""

    verdict: Verdict
    subject: str
    text: str
    fix: str = ""


def machine() -> Iterator[Finding]:
    """Look at the tools of this machine."""
    found = sys.version_info[:2]
    yield Finding(
        "ok" if found >= PYTHON else "FAIL",
        "python",
        f"{found[0]}.{found[1]}",
        "" if found >= PYTHON else "install Python 3.11 or newer",
    )
    try:
        version = helm_version()
        yield Finding("ok", "helm", f"{version[0]}.{version[1]}")
    except ToolError as error:
        what, _, fix = str(error).partition("; ")
        yield Finding("FAIL", "helm", what, fix)
    yield _tool(
        "kubectl", ["version", "--client"], (1, 30), "FAIL",
        "install kubectl (https://kubernetes.io/docs/tasks/tools/)",
    )  # fmt: skip
    yield _tool(
        "skaffold", ["version"], SKAFFOLD, "note",
        "install skaffold 2.19 for `skaffold dev` (https://skaffold.dev/docs/install/)",
    )  # fmt: skip
    try:
        yield Finding("ok", "images", f"built by {find_builder()}")
    except ImageError as error:
        what, _, fix = str(error).partition("; ")
        yield Finding("note", "images", what, fix)


def _tool(
    program: str, words: Sequence[str], oldest: tuple[int, int], bad: Verdict, fix: str
) -> Finding:
    if shutil.which(program) is None:
        return Finding(bad, program, "not on the PATH", fix)
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, timeout=30
    )
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    if found is None:
        return Finding(bad, program, "does not tell its version", fix)
    version = (int(found[1]), int(found[2]))
    text = f"{version[0]}.{version[1]}"
    if version < oldest:
        return Finding(bad, program, f"{text} is too old", fix)
    return Finding("ok", program, text)


def cluster_findings(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    """Look at the cluster; what may not be read is told as a note."""
    version = reachable(cluster)
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    new_enough = numbers is not None and (int(numbers[1]), int(numbers[2])) >= KUBERNETES
    yield Finding(
        "ok" if new_enough else "FAIL",
        "cluster",
        f"{cluster.context}, Kubernetes {version}",
        "" if new_enough else "upgrade it to 1.30 or newer: a pod's preStop.sleep needs it",
    )
    looks: Sequence[Callable[[Cluster, str], Finding]] = (
        _rights, _observing, _nodes, _dns, _storage, _entrance, _metrics, _monitoring,
    )  # fmt: skip
    for look in looks:
        try:
            yield look(cluster, namespace)
        except ApiException as error:
            yield Finding("note", look.__name__.strip("_"), f"cannot be read: {reason(error)}")


def _missing(cluster: Cluster, namespace: str, rights: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return those of the rights that one does not have, in words."""
    review = client.AuthorizationV1Api(cluster.api)
    missing = []
    for group, resource, verb in rights:
        body: Any = {
            "spec": {
                "resourceAttributes": {
                    "group": group,
                    "resource": resource,
                    "verb": verb,
                    "namespace": "" if resource in CLUSTER_WIDE else namespace,
                }
            }
        }
        answer: Any = review.create_self_subject_access_review(body, _request_timeout=TIMEOUT)
        if not answer.status.allowed:
            missing.append(f"{verb} {resource}")
    return missing


def _rights(cluster: Cluster, namespace: str) -> Finding:
    missing = _missing(cluster, namespace, NEEDED_RIGHTS)
    if missing == ["create namespaces"]:
        fix = f"have somebody create {namespace} from k8s/namespace.yaml"
        return Finding("note", "rights", "may not create namespaces", fix)
    if missing:
        return Finding(
            "FAIL", "rights", f"may not {', '.join(missing)}", f"be admin of {namespace}"
        )
    return Finding("ok", "rights", f"may deploy into namespace {namespace}")


def _observing(cluster: Cluster, namespace: str) -> Finding:
    missing = _missing(cluster, namespace, OBSERVING_RIGHTS)
    if not missing:
        return Finding("ok", "observing", "may deploy with OBSERVE=1")
    fix = f"be admin of {namespace}, or deploy without OBSERVE=1"
    if all(words.split()[1] in CLUSTER_WIDE for words in missing):
        fix = "set prometheus.cadvisor to false in k8s/environments, or deploy without OBSERVE=1"
    return Finding("note", "observing", f"may not {', '.join(missing)}", fix)


def _nodes(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    nodes: Any = cluster.core.list_node(_request_timeout=TIMEOUT)
    ready = [
        node
        for node in nodes.items
        if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ())
    ]
    text = f"{len(ready)} of {len(nodes.items)} ready"
    if not ready:
        return Finding("FAIL", "nodes", text, "look at `kubectl describe nodes`")
    return Finding("ok", "nodes", text)


def _dns(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    pods: Any = cluster.core.list_namespaced_pod(
        "kube-system", label_selector="k8s-app=kube-dns", _request_timeout=TIMEOUT
    )
    if any(pod.status.phase == "Running" for pod in pods.items):
        return Finding("ok", "dns", "runs in kube-system")
    return Finding(
        "note", "dns", "no k8s-app=kube-dns pod runs in kube-system",
        "if DNS runs elsewhere, set networkPolicy.dns in k8s/environments",
    )  # fmt: skip


def _storage(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    classes: Any = client.StorageV1Api(cluster.api).list_storage_class(_request_timeout=TIMEOUT)
    key = "storageclass.kubernetes.io/is-default-class"
    default = next(
        (each for each in classes.items if (each.metadata.annotations or {}).get(key) == "true"),
        None,
    )
    if default is None:
        return Finding(
            "FAIL", "storage", "no default StorageClass",
            "install a provisioner (minikube addons enable default-storageclass), or mark a class",
        )  # fmt: skip
    return Finding("ok", "storage", f"default StorageClass {default.metadata.name}")


def _entrance(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    classes: Any = cluster.networking.list_ingress_class(_request_timeout=TIMEOUT)
    names = [f"IngressClass {each.metadata.name}" for each in classes.items]
    try:
        names += [
            f"GatewayClass {each['metadata']['name']}"
            for each in cluster.custom("gateway.networking.k8s.io", "v1", "gatewayclasses")
        ]
    except ApiException as error:
        if error.status != 404:  # noqa: PLR2004  (the Gateway API is not installed)
            raise
    if names:
        return Finding("ok", "entrance", ", ".join(names))
    return Finding(
        "note", "entrance", "neither an Ingress nor a Gateway controller",
        "kubectl port-forward works without; for a real one see k8s/README.md",
    )  # fmt: skip


def _metrics(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    fix = "install metrics-server (minikube addons enable metrics-server), or nothing scales"
    try:
        service: Any = client.ApiregistrationV1Api(cluster.api).read_api_service(
            "v1beta1.metrics.k8s.io", _request_timeout=TIMEOUT
        )
    except ApiException as error:
        if error.status != 404:  # noqa: PLR2004  (not installed)
            raise
        return Finding("FAIL", "metrics", "no metrics-server", fix)
    for condition in service.status.conditions or ():
        if condition.type == "Available" and condition.status == "True":
            return Finding("ok", "metrics", "metrics-server answers")
    return Finding("FAIL", "metrics", "metrics-server does not answer", fix)


def _monitoring(cluster: Cluster, namespace: str) -> Finding:
    del namespace
    try:
        cluster.custom("monitoring.coreos.com", "v1", "servicemonitors")
    except ApiException as error:
        if error.status != 404:  # noqa: PLR2004  (not installed)
            raise
        return Finding("ok", "monitoring", "no Prometheus operator; the charts need none")
    return Finding("ok", "monitoring", "Prometheus operator: ServiceMonitors can be enabled")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.kube.doctor", description=__doc__)
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--context", default="")
    options = parser.parse_args(arguments)
    console = Console()
    findings = list(machine())
    try:
        cluster = connect(options.context or None)
        findings += cluster_findings(cluster, options.namespace)
    except ToolError as error:
        what, _, fix = str(error).partition("; ")
        findings.append(Finding("FAIL", "cluster", what, fix))
    except (HTTPError, OSError) as error:
        findings.append(Finding("FAIL", "cluster", reason(error), "is it started?"))
    colours = {"ok": "green", "note": "yellow", "FAIL": "red"}
    for each in findings:
        line = f"{each.subject:<10} {each.text}" + (f" -> {each.fix}" if each.fix else "")
        console.print(f"{each.verdict:<5}", style=colours[each.verdict], end="")
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if any(each.verdict == "FAIL" for each in findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
