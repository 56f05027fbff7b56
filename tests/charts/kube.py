"""What the chart tests share: Helm's own engine, Kubernetes' schemas, and Pod Security's rules."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

from scripts.gateway import merge
from scripts.topology import ROOT

OLDEST = (1, 30)
VERSIONS = [
    version
    for version in dict.fromkeys(kubernetes_validate.utils.all_versions())
    if tuple(map(int, version.split(".")[:2])) >= OLDEST
]

# Kinds of others, which Kubernetes' schemas do not know.
FOREIGN = {"HTTPRoute", "PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"}

Manifest = dict[str, Any]


class RefusedError(Exception):
    """The chart refused its values; the text is what Helm says."""


def values_of(*files: str, **more: Any) -> dict[str, Any]:
    """Return values files of the tree laid over one another, as `helm -f a -f b` does."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge(merged, yaml.safe_load((ROOT / file).read_text()) or {})
    return merge(merged, more)


def render(
    chart: str, values: Mapping[str, Any], name: str = "", namespace: str = "slipway"
) -> list[Manifest]:
    """Return every object of the chart, hooks included, without a cluster.

    Raises:
        RefusedError: a value is refused.
    """
    try:
        with helm_python.Chart.load(ROOT / "charts" / chart) as loaded:
            texts = loaded.render(dict(values), name=name or chart, namespace=namespace)
    except helm_python.HelmError as error:
        raise RefusedError(" ".join(str(error).split())) from None
    return [
        document
        for file, text in texts.items()
        if Path(file).suffix == ".yaml"
        for document in yaml.safe_load_all(text)
        if document
    ]


def of_kind(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the one object of a kind, or of a kind and name."""
    found = [
        m for m in manifests if m["kind"] == kind and (not name or m["metadata"]["name"] == name)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


@functools.cache
def _schemas(version: str) -> tuple[Path, Registry]:
    folder = resources.files(kubernetes_validate) / "kubernetes-json-schema"
    local = Path(str(folder / f"v{version}-local-strict"))
    definitions = Resource.from_contents(json.loads((local / "_definitions.json").read_text()))
    return local, definitions @ Registry()


@functools.cache
def _validator(version: str, kind: str, api: str) -> jsonschema.Draft202012Validator:
    local, registry = _schemas(version)
    group, _, number = api.rpartition("/")
    prefix = f"{group.split('.')[0]}-" if group else ""
    schema = json.loads((local / f"{kind.lower()}-{prefix}{number}.json").read_text())
    return jsonschema.Draft202012Validator(
        schema, registry=Resource.from_contents(schema) @ registry
    )


def schema_errors(manifests: Iterable[Manifest], version: str) -> list[str]:
    """Return what Kubernetes of a version would not take; an unknown field is an error."""
    return [
        f"{m['kind']} {m['metadata']['name']}: {error.json_path}: {error.message[:200]}"
        for m in manifests
        if m["kind"] not in FOREIGN
        for error in _validator(version, m["kind"], m["apiVersion"]).iter_errors(m)
    ]


def pods(manifests: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the name and the pod (metadata and spec) of everything that starts pods."""
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        match manifest["kind"]:
            case "Pod":
                yield name, manifest
            case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
                yield name, manifest["spec"]["template"]
            case "CronJob":
                yield name, manifest["spec"]["jobTemplate"]["spec"]["template"]


def policy_errors(manifests: Iterable[Manifest]) -> list[str]:
    """Return what Pod Security `restricted` would refuse, and what our own rules add to it.

    Ours: a read-only root, no token, a number for the user, requests, no `latest`.
    """
    errors = []
    for name, pod in pods(manifests):
        errors += [f"{name}: {problem}" for problem in _pod_problems(pod["spec"])]
    return errors


def _pod_problems(spec: Manifest) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", ()):
        allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
        if not set(volume) - {"name"} <= allowed:
            yield f"volume {volume['name']}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "a token is mounted"
    shared = spec.get("securityContext", {})
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        for problem in _container_problems(container, shared):
            yield f"{container['name']}: {problem}"


def _container_problems(container: Manifest, shared: Manifest) -> Iterator[str]:
    own = {**shared, **container.get("securityContext", {})}
    if own.get("runAsNonRoot") is not True or not own.get("runAsUser"):
        yield "runs as root"
    if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield "privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root is writable"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield "a port of the host"
    if not {"cpu", "memory"} <= set(container.get("resources", {}).get("requests", {})):
        yield "no requests"
    tag = container["image"].rpartition(":")[2]
    if "/" in tag or tag == "latest" or tag == container["image"]:
        yield f"{container['image']} is not pinned"


def label_errors(manifests: Iterable[Manifest], instance: str) -> list[str]:
    """Return the objects and pods without the labels that everything of ours carries."""
    wanted = {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "app.kubernetes.io/part-of",
        "app.kubernetes.io/component",
        "app.kubernetes.io/managed-by",
        "helm.sh/chart",
    }
    manifests = list(manifests)
    carriers = [(f"{m['kind']} {m['metadata']['name']}", m["metadata"]) for m in manifests]
    carriers += [(f"a pod of {name}", pod["metadata"]) for name, pod in pods(manifests)]
    errors = []
    for name, metadata in carriers:
        labels = metadata.get("labels", {})
        if missing := wanted - set(labels):
            errors.append(f"{name}: no {', '.join(sorted(missing))}")
        elif labels["app.kubernetes.io/instance"] != instance:
            errors.append(f"{name}: {labels['app.kubernetes.io/instance']}")
    return errors
