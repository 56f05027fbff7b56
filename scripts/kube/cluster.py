"""The cluster of the current kubectl context, through the `kubernetes` client.

Every call has a timeout, so that a cluster that is away is told instead of waited for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from scripts.kube.errors import ToolError

TIMEOUT = (3.0, 15.0)
"""Seconds to connect, and to wait for an answer."""

_PRODUCTION = re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Cluster:
    """One context of the kubeconfig."""

    context: str
    api: client.ApiClient

    @property
    def core(self) -> client.CoreV1Api:
        """Pods, Services, Secrets, events."""
        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        """Deployments and StatefulSets."""
        return client.AppsV1Api(self.api)

    @property
    def autoscaling(self) -> client.AutoscalingV2Api:
        """HorizontalPodAutoscalers."""
        return client.AutoscalingV2Api(self.api)

    @property
    def networking(self) -> client.NetworkingV1Api:
        """Ingresses and their classes."""
        return client.NetworkingV1Api(self.api)

    @property
    def batch(self) -> client.BatchV1Api:
        """Jobs."""
        return client.BatchV1Api(self.api)

    def custom(self, group: str, version: str, plural: str) -> list[dict[str, Any]]:
        """Return the objects of a kind that the client has no class for, in all namespaces.

        Raises:
            ApiException: `status` 404 when the kind is not installed.
        """
        found: Any = client.CustomObjectsApi(self.api).list_cluster_custom_object(
            group, version, plural, _request_timeout=TIMEOUT
        )
        return list(found["items"])


def connect(context: str | None = None) -> Cluster:
    """Return the cluster of `context`, by default the current one.

    Raises:
        ToolError: there is no kubeconfig or no such context.
    """
    try:
        contexts, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        name = context or (active or {}).get("name")
        if not name or name not in {entry["name"] for entry in contexts}:
            known = ", ".join(sorted(entry["name"] for entry in contexts)) or "none"
            raise ToolError(f"no context {name or 'is current'}; kubectl knows: {known}")
        loaded = client.Configuration()
        config.load_kube_config(  # type: ignore[no-untyped-call]
            context=name, client_configuration=loaded
        )
        loaded.retries = False
        return Cluster(name, client.ApiClient(loaded))
    except config.ConfigException as error:
        raise ToolError(
            f"no cluster: {error}; make one with `make cluster`, or set KUBECONFIG"
        ) from None


def reachable(cluster: Cluster) -> str:
    """Return the server's version, such as v1.36.2.

    Raises:
        ToolError: it does not answer.
    """
    try:
        version = client.VersionApi(cluster.api).get_code(_request_timeout=TIMEOUT)
    except (ApiException, HTTPError, OSError) as error:
        raise ToolError(
            f"the cluster of context {cluster.context} does not answer: {reason(error)}; "
            "is it started?",
            1,
        ) from None
    return str(version.git_version)


def looks_like_production(name: str) -> bool:
    """Say whether a context or namespace has production in its name."""
    return bool(_PRODUCTION.search(name))


def reason(error: Exception) -> str:
    """Return why a call failed, in one line."""
    if isinstance(error, ApiException):
        try:
            return str(json.loads(error.body or "")["message"])
        except (TypeError, ValueError, KeyError):
            return f"{error.status} {error.reason}"
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return " ".join(text.split())[:300]


def labels(selector: Mapping[str, str]) -> str:
    """Return a label selector."""
    return ",".join(f"{name}={value}" for name, value in selector.items())
