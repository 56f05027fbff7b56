"""The datastores' values: which databases and secrets the services need, from the topology.

`k8s/datastores-services.yaml`, for `charts/datastores`, is generated from the service.yaml files by

    python -m scripts.datastores --write

and a test compares it with the tree. Without a flag, the tool prints it; `--check` says whether the
generated file is current. The chart makes the values of the secrets; none stands in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.generated import main as write_or_check
from scripts.topology import Service, Topology, TopologyError

CHART = Path("charts", "datastores")
GENERATED = Path("k8s", "datastores-services.yaml")
HEADER = "# Generated from services/*/service.yaml by scripts/datastores.py --write; do not edit.\n"

_CLIENTS = "AUTH_CLIENTS"
_KEY_SUFFIX = "_ENCRYPTION_KEY"
_CLIENT_SUFFIX = "CLIENT_SECRET"


def services_values(topology: Topology) -> dict[str, Any]:
    """Return the chart's `services`: what each service needs, without those that need nothing.

    Raises:
        TopologyError: a service asks for tokens and has no secret to show.
    """
    needs = {service.name: _needs(service) for service in topology}
    return {name: values for name, values in needs.items() if values}


def generated(topology: Topology) -> str:
    """Return the text of `k8s/datastores-services.yaml`."""
    values = {"services": services_values(topology)}
    return HEADER + yaml.safe_dump(values, sort_keys=False, width=100)


def _needs(service: Service) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if service.migrates:
        values["database"] = True
    if service.valkey:
        values["valkey"] = True
    if service.secrets:
        values["secrets"] = {name: _kind(name) for name in service.secrets}
    if service.client_scopes:
        secret = f"{service.prefix}{_CLIENT_SUFFIX}"
        if secret not in service.secrets:
            raise TopologyError(
                f"services/{service.name}/service.yaml: secrets.{secret}: is missing; "
                "a service with client.scopes shows it to auth"
            )
        values["client"] = {"secret": secret, "scopes": list(service.client_scopes)}
    return values


def _kind(name: str) -> str:
    """Say how the chart makes a secret: see `services` in the chart's schema."""
    if name == _CLIENTS:
        return "clients"
    return "key" if name.endswith(_KEY_SUFFIX) else "password"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool. Exit code 1 when the generated file is stale, 2 for bad input."""
    return write_or_check("datastores", GENERATED, generated, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
