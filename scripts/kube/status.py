"""`make cluster-status`: releases, rollouts, autoscalers, and what is not well, on one page.

Exit code 1 when something is not well, so that a script may ask too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from kubernetes.client.exceptions import ApiException
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from urllib3.exceptions import HTTPError

from scripts.kube.cluster import TIMEOUT, Cluster, connect, reachable, reason
from scripts.kube.deploy import NAMESPACE
from scripts.kube.errors import ToolError
from scripts.kube.helm import Helm
from scripts.kube.workloads import Rollout, rollouts, unwell

_BAR = 12
_POLL = 2.0
_WIDTH = 160


def page(cluster: Cluster, namespace: str) -> tuple[RenderableType, bool]:
    """Return the page, and whether everything on it is well."""
    helm = Helm(cluster.context, namespace)
    releases = {str(entry["name"]): entry for entry in helm.releases()}
    found = rollouts(cluster, namespace)
    if not releases and not found:
        text = f"nothing is deployed in namespace {namespace}; `make deploy` does it"
        return Text(text), False
    scalers = {
        scaler.spec.scale_target_ref.name: scaler
        for scaler in _items(
            cluster.autoscaling.list_namespaced_horizontal_pod_autoscaler(
                namespace, _request_timeout=TIMEOUT
            )
        )
    }
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("RELEASE", "REVISION", "HELM", "WORKLOAD", "PODS", "", "AUTOSCALER"):
        table.add_column(heading, no_wrap=True)
    for each in found:
        release = releases.get(each.release, {})
        scaler = scalers.get(each.name)
        table.add_row(
            each.release,
            str(release.get("revision", "-")),
            str(release.get("status", "-")),
            each.name,
            f"{each.ready}/{each.desired}",
            _bar(each),
            "-" if scaler is None else scaling(scaler),
        )
    wrong = [
        f"release {name}: {entry['status']}"
        for name, entry in releases.items()
        if entry["status"] != "deployed"
    ]
    wrong += [f"{each.name}: {each.failed}" for each in found if each.failed]
    wrong += unwell(cluster, namespace)
    late = [each.name for each in found if not each.done and not each.failed]
    rows: list[RenderableType] = [table]
    if late:
        rows.append(Text(f"rolling out: {', '.join(late)}", "yellow"))
    rows += [Text(line, "red") for line in wrong] or ([] if late else [Text("all well", "green")])
    return Group(*rows), not wrong and not late


def scaling(scaler: Any) -> str:
    """Return what an autoscaler does, such as `cpu 34%/70%, 2 of 2-10`."""
    current = dict(map(_usage, scaler.status.current_metrics or ()))
    parts = []
    for metric in scaler.spec.metrics or ():
        source = metric.resource or metric.container_resource
        if source is not None and source.target.average_utilization is not None:
            now = current.get(source.name)
            parts.append(
                f"{source.name} {'?' if now is None else now}%/{source.target.average_utilization}%"
            )
    limits = f"{scaler.spec.min_replicas or 1}-{scaler.spec.max_replicas}"
    return ", ".join([*parts, f"{scaler.status.desired_replicas or 0} of {limits}"])


def _usage(metric: Any) -> tuple[str, int | None]:
    source = metric.resource or metric.container_resource
    return ("", None) if source is None else (source.name, source.current.average_utilization)


def _bar(rollout: Rollout) -> Text:
    share = min(rollout.ready / rollout.desired, 1.0) if rollout.desired else 1.0
    full = round(share * _BAR)
    colour = "red" if rollout.failed else "green" if rollout.done else "yellow"
    return Text("█" * full + "░" * (_BAR - full), colour)


def _items(listed: Any) -> list[Any]:
    return list(listed.items)


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the page, once or until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m scripts.kube.status", description=__doc__)
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--context", default="")
    parser.add_argument("--watch", action="store_true")
    options = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # a pipe has none of its own
    try:
        cluster = connect(options.context or None)
        version = reachable(cluster)
        console.print(
            f"context {cluster.context}, Kubernetes {version}, namespace {options.namespace}",
            highlight=False,
        )
        shown, well = page(cluster, options.namespace)
        if options.watch and console.is_terminal:
            with Live(shown, console=console, auto_refresh=False) as live:
                while True:
                    time.sleep(_POLL)
                    shown, well = page(cluster, options.namespace)
                    live.update(shown, refresh=True)
        console.print(shown)
    except KeyboardInterrupt:
        return 0
    except ToolError as error:
        print(f"status: {error}", file=sys.stderr)
        return error.code
    except (ApiException, HTTPError, OSError) as error:
        print(f"status: {reason(error)}", file=sys.stderr)
        return 2
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
