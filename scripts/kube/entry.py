"""How to reach the gateway of a cluster: its public address, or a forwarded port."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes.client.exceptions import ApiException

from scripts.kube.cluster import TIMEOUT, Cluster
from scripts.kube.errors import ToolError

_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_SECONDS = 20.0


def address(cluster: Cluster, namespace: str) -> tuple[str, str] | None:
    """Return the URL and the host name of the Ingress or HTTPRoute in front of the gateway.

    None when there is neither, or no controller has given it an address yet. The host is empty
    when any will do.
    """
    ingresses: Any = cluster.networking.list_namespaced_ingress(namespace, _request_timeout=TIMEOUT)
    for ingress in ingresses.items:
        points = (ingress.status.load_balancer or None) and ingress.status.load_balancer.ingress
        host = next((rule.host for rule in ingress.spec.rules or () if rule.host), "") or ""
        if points:
            scheme = "https" if ingress.spec.tls else "http"
            return f"{scheme}://{points[0].hostname or points[0].ip}", host
    return _gateway_api(cluster, namespace)


def _gateway_api(cluster: Cluster, namespace: str) -> tuple[str, str] | None:
    try:
        routes = cluster.custom("gateway.networking.k8s.io", "v1", "httproutes")
        gateways = {
            (gateway["metadata"]["namespace"], gateway["metadata"]["name"]): gateway
            for gateway in cluster.custom("gateway.networking.k8s.io", "v1", "gateways")
        }
    except ApiException:
        return None  # not installed, or not ours to read
    for route in routes:
        if route["metadata"]["namespace"] != namespace:
            continue
        for parent in route["spec"].get("parentRefs", ()):
            key = (parent.get("namespace", namespace), parent["name"])
            given = gateways.get(key, {}).get("status", {}).get("addresses") or ()
            if given:
                section = parent.get("sectionName", "")
                scheme = "https" if _is_https(gateways[key], section) else "http"
                hosts = route["spec"].get("hostnames") or [""]
                return f"{scheme}://{given[0]['value']}", hosts[0]
    return None


def _is_https(gateway: dict[str, Any], section: str) -> bool:
    return any(
        listener["protocol"] == "HTTPS"
        for listener in gateway["spec"]["listeners"]
        if section in {"", listener["name"]}
    )


@contextmanager
def forwarded(
    cluster: Cluster, namespace: str, target: str = "service/gateway", port: int = 80
) -> Iterator[str]:
    """Forward a free port of this machine to a port of `target`; yield its URL.

    Raises:
        ToolError: kubectl is missing, or there is nothing to forward to.
    """
    command = [
        "kubectl", "--context", cluster.context, "--namespace", namespace,
        "port-forward", "--address", "127.0.0.1", target, f":{port}",
    ]  # fmt: skip
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError:
        raise ToolError("kubectl is not on the PATH; install it") from None
    watchdog = threading.Timer(_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = _FORWARDED.search(process.stdout.readline())
        watchdog.cancel()
        if found is None:
            process.kill()
            raise ToolError(f"port-forward to {target}: {process.stderr.read().strip()}", 1)
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate()
