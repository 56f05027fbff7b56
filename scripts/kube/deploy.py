"""`make deploy`, `rollout`, `rollback`, `undeploy`: the platform as Helm releases.

A release that does not become ready is told with the reason and taken back to its last good
revision; what served before serves on. Exit code 1 when a release fails, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException
from rich.console import Console
from urllib3.exceptions import HTTPError

from scripts.kube import watch
from scripts.kube.cluster import TIMEOUT, Cluster, connect, looks_like_production, reachable, reason
from scripts.kube.errors import ToolError
from scripts.kube.helm import Helm
from scripts.kube.releases import (
    DATASTORES,
    GUARDED,
    OBSERVABILITY,
    Images,
    Release,
    environments,
    releases,
)
from scripts.kube.workloads import stuck_hook, unwell
from scripts.topology import ROOT, TopologyError, load

NAMESPACE = "slipway"
_NAMESPACE_FILE = ROOT / "k8s" / "namespace.yaml"


class Deployer:
    """Installs, upgrades and takes back releases in one namespace of one cluster."""

    def __init__(self, cluster: Cluster, namespace: str, console: Console) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.console = console
        self.helm = Helm(cluster.context, namespace)

    def deploy(self, wanted: Sequence[Release]) -> None:
        """Bring `wanted` up to date: the datastores first, then the rest side by side.

        Raises:
            ToolError: a release failed; it was taken back.
        """
        self._namespace()
        before = {release.name: self.helm.good_revision(release.name) for release in wanted}
        first = [release for release in wanted if release.name == DATASTORES]
        rest = [release for release in wanted if release.name != DATASTORES]
        for group in (first, rest):
            for release in group:
                self._say(f"{'upgrade' if before[release.name] else 'install'} {release.name}")
                try:
                    self.helm.upgrade(
                        release.name,
                        release.chart,
                        release.values,
                        release.sets,
                        partial(stuck_hook, self.cluster, self.namespace, release.name),
                        reuse=release.reuses,
                    )
                except ToolError as error:
                    self._failed(release.name, before[release.name], str(error))
            self._wait([release.name for release in group], before)

    def roll_out(self, release: Release) -> None:
        """Bring another image to a release that is there; all else stays as it was installed.

        Raises:
            ToolError: there is no such release or image, or it failed; then it was taken back.
        """
        changed = release.with_image()
        self._history(release.name)
        self.deploy([changed])

    def rollback(self, name: str, revision: int) -> None:
        """Go back to an older revision of a release, by default the one before."""
        known = [entry["revision"] for entry in self._history(name)]
        if revision and revision not in known:
            raise ToolError(f"REVISION={revision}: {name} has {', '.join(map(str, known))}")
        if not revision and len(known) < 2:  # noqa: PLR2004  (this one and the one before)
            raise ToolError(f"{name} has no earlier revision to go back to", 1)
        self.helm.rollback(name, revision)
        self._wait([name], {})

    def restart(self, name: str) -> None:
        """Replace the pods of a release one by one, as `kubectl rollout restart` does."""
        self._history(name)
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        body = {
            "spec": {
                "template": {
                    "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": stamp}}
                }
            }
        }
        self.cluster.apps.patch_namespaced_deployment(
            name, self.namespace, body, field_manager="slipway", _request_timeout=TIMEOUT
        )
        self._wait([name], {})

    def undeploy(self, *, data: bool) -> None:
        """Remove every release, the datastores last; with `data` volumes and secrets too."""
        names = [str(entry["name"]) for entry in self.helm.releases()]
        for name in sorted(names, key=lambda each: each == DATASTORES):
            self._say(f"uninstall {name}")
            self.helm.uninstall(name)
        if data:
            self._say(f"delete namespace {self.namespace}")
            self.cluster.core.delete_namespace(self.namespace, _request_timeout=TIMEOUT)
        elif names:
            self._say("the volumes and generated secrets are kept; DATA=1 deletes them")

    def _history(self, name: str) -> list[dict[str, int]]:
        if self.helm.revision(name) == 0:
            raise ToolError(f"no release {name} in namespace {self.namespace}; `make deploy` it")
        return self.helm.history(name)

    def _wait(self, names: Sequence[str], before: dict[str, int]) -> None:
        if not names:
            return
        try:
            watch.wait(self.cluster, self.namespace, names, self.console)
        except watch.RolloutFailed as error:
            self._failed(error.release, before.get(error.release, 0), str(error))

    def _failed(self, name: str, before: int, why: str) -> None:
        """Tell why `name` failed, take it back to revision `before`, and raise."""
        for line in unwell(self.cluster, self.namespace, name):
            self._say(line)
        after = f"; it is left for you to look at (`kubectl -n {self.namespace} get pods`)"
        if before and self.helm.revision(name) > before:
            self.helm.rollback(name, before)
            after = f"; taken back to revision {before}, which serves on"
        elif before:
            after = f"; revision {before} serves on"
        raise ToolError(f"{name}: {why}{after}", 1)

    def _namespace(self) -> None:
        """Create the namespace, closed to everything but restricted pods."""
        body: Any = yaml.safe_load(_NAMESPACE_FILE.read_text(encoding="utf-8"))
        body["metadata"]["name"] = self.namespace
        try:
            self.cluster.core.create_namespace(body, _request_timeout=TIMEOUT)
        except ApiException as error:
            if error.status != 409:  # noqa: PLR2004  (it is there)
                raise

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def guard(cluster: Cluster, namespace: str, environment: str, confirmed: str) -> None:
    """Refuse to touch what looks like production unless its context was named.

    Raises:
        ToolError: it was not.
    """
    serious = environment in GUARDED or any(
        looks_like_production(name) for name in (cluster.context, namespace)
    )
    if serious and confirmed != cluster.context:
        raise ToolError(
            f"this would change {environment} through context {cluster.context}; "
            f"say that you mean it: CONTEXT={cluster.context}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (ToolError, TopologyError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return error.code if isinstance(error, ToolError) else 2
    except (ApiException, HTTPError, OSError) as error:
        print(f"{options.command}: {reason(error)}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    topology = load()
    service = getattr(options, "service", "")
    images = Images(options.tag, options.registry, _digests(options.digests))
    observed = options.observe or service == OBSERVABILITY
    wanted = releases(topology, options.env, images, observed=observed)
    if service and service not in (known := [release.name for release in wanted]):
        raise ToolError(
            f"SERVICE={service}: unknown for ENV={options.env}; use one of {', '.join(known)}"
        )
    if options.command in {"rollout", "rollback"} and not service:
        raise ToolError("which one? name it: SERVICE=orders")
    cluster = connect(options.context or None)
    guard(cluster, options.namespace, options.env, options.context)
    reachable(cluster)
    deployer = Deployer(cluster, options.namespace, Console())
    match options.command:
        case "deploy":
            deployer.deploy([each for each in wanted if service in {"", each.name}])
        case "rollout" if options.tag or options.digests:
            deployer.roll_out(next(each for each in wanted if each.name == service))
        case "rollout":
            deployer.restart(service)
        case "rollback":
            deployer.rollback(service, options.revision)
        case "undeploy":
            deployer.undeploy(data=options.data)


def _digests(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ToolError(f"DIGESTS={path}: {error}; give a JSON file of service to digest") from None
    if not isinstance(found, dict):
        raise ToolError(f"DIGESTS={path}: no JSON object of service to digest")
    return {str(name): str(digest) for name, digest in found.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.kube.deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("deploy", "install or upgrade the platform, or one service"),
        ("rollout", "roll a service out anew, with another image if one is named"),
        ("rollback", "go back to an earlier revision of a service"),
        ("undeploy", "remove the platform"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--env", default="dev", help=f"one of {', '.join(environments())}")
        command.add_argument("--namespace", default=NAMESPACE)
        command.add_argument("--context", default="", help="the kubectl context, to be sure")
        command.add_argument("--tag", default="", help="the images' tag")
        command.add_argument("--registry", default="", help="what stands before the images' names")
        command.add_argument("--digests", default="", help="JSON file: service to image digest")
        command.add_argument("--observe", action="store_true", help="the observability release too")
        if name != "undeploy":
            command.add_argument("--service", default="")
        if name == "rollback":
            command.add_argument("--revision", type=int, default=0)
        if name == "undeploy":
            command.add_argument("--data", action="store_true", help="volumes and secrets too")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
