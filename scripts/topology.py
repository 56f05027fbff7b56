"""The topology of the platform: every `services/*/service.yaml`, read and checked once.

A file is a release. Its code is in the same folder, or in the one that `package` names: then
several releases run one image, scaled apart.

This is the only reader of those files in Python: the local runner, the gateway's values and the
tests all start here. A file is checked against `charts/service/values.schema.json`, the schema
that Helm applies to the same file, and then for what a schema cannot say: names that agree,
peers that exist, routes that do not meet. `python -m scripts.topology` checks the tree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Path("charts", "service", "values.schema.json")

AuthMode = Literal["required", "optional", "none"]


class TopologyError(Exception):
    """A service.yaml is missing or wrong. Its text is one line: `file: field: what is wrong`."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A route's own limit for each client."""

    requests_per_second: float
    burst: int
    by: Literal["client", "address"] = "client"


@dataclass(frozen=True, slots=True)
class Route:
    """A path that the gateway lets in, with everything below it unless it is exact."""

    path: str
    auth: AuthMode
    versioned: bool = False
    exact: bool = False
    methods: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    rate_limit: RateLimit | None = None
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class Slo:
    """What a service promises. `availability` and `latency_percent` are percentages."""

    owner: str
    availability: float
    latency_percent: float | None = None
    latency_milliseconds: int | None = None
    runbook: str | None = None


@dataclass(frozen=True)
class Service:
    """One service of the tree, as its service.yaml declares it."""

    name: str
    description: str
    image: str
    port: int
    slo: Slo
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    code: str = ""
    """The folder of services/ with its code, where that is not its own."""
    depends_on: tuple[str, ...] = ()
    client_scopes: tuple[str, ...] = ()
    database: bool = False
    database_of: str = ""
    """The service whose database it shares and who migrates it; empty: it has its own."""
    valkey: bool = False
    """Its replicas share a Valkey, by `<NAME>_VALKEY_URL`."""
    publishes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    """The whole file, for what has no field here."""

    @property
    def package(self) -> str:
        """The folder of services/ with its code; releases of one package run one image."""
        return self.code or self.name

    @property
    def prefix(self) -> str:
        """The prefix of its environment variables, for example `ORDERS_`."""
        return f"{self.package.upper().replace('-', '_')}_"

    @property
    def module(self) -> str:
        """The import package."""
        return self.package.replace("-", "_")

    @property
    def migrates(self) -> bool:
        """Whether the database is its own to migrate and to seed."""
        return self.database and not self.database_of

    def environment(self, url_of: Callable[[str], str]) -> dict[str, str]:
        """Return the variables that follow from the file; `url_of` gives a peer's base URL."""
        variables = dict(self.env)
        if self.package != self.name:
            variables[f"{self.prefix}SERVICE_NAME"] = self.name
        for peer in self.depends_on:
            variables[f"{self.prefix}{peer.upper().replace('-', '_')}_URL"] = url_of(peer)
        if self.publishes:
            variables[f"{self.prefix}SUBSCRIBERS"] = json.dumps(
                {
                    event: [f"{url_of(peer)}/events" for peer in peers]
                    for event, peers in self.publishes.items()
                }
            )
        return variables


@dataclass(frozen=True)
class Topology:
    """All services, by name, in the order of their names."""

    root: Path
    services: Mapping[str, Service]

    def __iter__(self) -> Iterator[Service]:
        """Yield the services in the order of their names."""
        return iter(self.services.values())

    def __getitem__(self, name: str) -> Service:
        """Return one service; `KeyError` if there is none of this name."""
        return self.services[name]

    @property
    def packages(self) -> tuple[Service, ...]:
        """One service for each package, the first by name: what is built once."""
        found: dict[str, Service] = {}
        for service in self:
            found.setdefault(service.package, service)
        return tuple(found.values())

    @cached_property
    def start_order(self) -> tuple[Service, ...]:
        """The services, each after those it depends on where there is no circle.

        Whoever migrates a database comes before those who share it.
        """
        ordered: dict[str, Service] = {}

        def visit(service: Service, above: frozenset[str]) -> None:
            if service.name in ordered or service.name in above:
                return
            shared = (service.database_of,) if service.database_of else ()
            for peer in (*service.depends_on, *shared):
                visit(self.services[peer], above | {service.name})
            ordered[service.name] = service

        for service in self:
            visit(service, frozenset())
        return tuple(ordered.values())


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key written twice; PyYAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise TopologyError(f"{key}: written twice (line {line})")
        return super().construct_mapping(node, deep)


def load(root: Path = ROOT) -> Topology:
    """Read and check every service of the tree at `root`.

    Raises:
        TopologyError: a file is unreadable, breaks the schema, or disagrees with another one.
    """
    files = sorted(root.glob("services/*/service.yaml"))
    if not files:
        raise TopologyError(f"{root}: no services/*/service.yaml; run this from the tree's root")
    schema = json.loads((root / SCHEMA).read_text())
    services = {file.parent.name: read(file, schema, root) for file in files}
    topology = Topology(root, MappingProxyType(services))
    for problem in _disagreements(topology):
        raise TopologyError(problem)
    return topology


def read(file: Path, schema: Mapping[str, Any], root: Path = ROOT) -> Service:
    """Read one service.yaml and check it alone.

    Raises:
        TopologyError: the file is unreadable, breaks the schema or its own name.
    """
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    try:
        # A subclass of SafeLoader: it builds plain data only.
        values = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{shown}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise TopologyError(f"{shown}: no YAML: {' '.join(str(error).split())}") from None
    except TopologyError as error:
        raise TopologyError(f"{shown}: {error}") from None
    validator = jsonschema.Draft7Validator(schema)
    broken = sorted(
        validator.iter_errors(values), key=lambda e: (len(e.path), list(map(str, e.path)))
    )
    if broken:
        raise TopologyError(f"{shown}: {_explain(broken[0])}")
    service = _service(values)
    for problem in _own_problems(service, file.parent.name):
        raise TopologyError(f"{shown}: {problem}")
    return service


def _explain(error: jsonschema.ValidationError) -> str:
    """Say in one line which field is wrong, and how."""
    where = ""
    for step in error.absolute_path:
        where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
    expected: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "additionalProperties" if isinstance(error.schema, Mapping):
            known = error.schema.get("properties", {})
            unknown = next(key for key in instance if key not in known)
            where = f"{where}.{unknown}" if where else str(unknown)
            what = "unknown field" + (f"; known are {', '.join(sorted(known))}" if known else "")
        case "required":
            missing = next(key for key in expected if key not in instance)
            where, what = f"{where}.{missing}" if where else missing, "is missing"
        case "enum":
            what = f"{instance!r} is none of {', '.join(map(str, expected))}"
        case "not":
            what = f"{instance!r} is not for the gateway (internal, or names a version)"
        case _:
            what = error.message
    return " ".join(f"{where or 'the file'}: {what}".split())


def _service(values: dict[str, Any]) -> Service:
    latency = values["slo"].get("latency", {})
    return Service(
        name=values["name"],
        code=values.get("package", ""),
        description=values["description"],
        image=values["image"]["repository"],
        port=values["port"],
        slo=Slo(
            owner=values["slo"]["owner"],
            availability=values["slo"]["availability"],
            latency_percent=latency.get("percent"),
            latency_milliseconds=latency.get("milliseconds"),
            runbook=values["slo"].get("runbook"),
        ),
        env=MappingProxyType({k: _plain(v) for k, v in values.get("env", {}).items()}),
        secrets=tuple(values.get("secrets", {})),
        depends_on=tuple(values.get("dependsOn", {})),
        client_scopes=tuple(values.get("client", {}).get("scopes", ())),
        database=values.get("database", {}).get("enabled", False),
        database_of=values.get("database", {}).get("of", ""),
        valkey=values.get("valkey", {}).get("enabled", False),
        publishes=MappingProxyType(
            {k: tuple(v) for k, v in values.get("events", {}).get("publishes", {}).items()}
        ),
        routes=tuple(map(_route, values.get("routes", ()))),
        values=MappingProxyType(values),
    )


def _plain(value: str | float | bool) -> str:
    """Write a YAML scalar as the environment holds it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _route(values: dict[str, Any]) -> Route:
    limit = values.get("rateLimit")
    return Route(
        path=values["path"],
        auth=values["auth"],
        versioned=values.get("versioned", False),
        exact=values.get("exact", False),
        methods=tuple(values.get("methods", ())),
        timeout_seconds=values.get("timeoutSeconds"),
        rate_limit=RateLimit(limit["requestsPerSecond"], limit["burst"], limit.get("by", "client"))
        if limit
        else None,
        websocket=values.get("websocket", False),
    )


def _own_problems(service: Service, folder: str) -> Iterator[str]:
    if service.name != folder:
        yield f"name: {service.name!r} is not the folder's name {folder!r}"
    for where, names in (("env", service.env), ("secrets", service.secrets)):
        for name in names:
            if not name.startswith(service.prefix):
                yield f"{where}.{name}: does not start with {service.prefix}"
    if service.database_of and not service.database:
        yield "database.of: the database is not enabled; set database.enabled: true"
    for name in service.secrets:
        if name in service.env:
            yield f"env.{name}: is a secret too; keep one of them"
    scaling = service.values.get("autoscaling", {})
    if scaling.get("minReplicas", 1) > scaling.get("maxReplicas", 1000):
        yield "autoscaling.minReplicas: is more than maxReplicas"


def _disagreements(topology: Topology) -> Iterator[str]:
    """Yield what is wrong between services."""
    seen: dict[tuple[str, str], str] = {}
    for service in topology:
        file = f"services/{service.name}/service.yaml"
        for peer in service.depends_on:
            if peer == service.name or peer not in topology.services:
                yield f"{file}: dependsOn.{peer}: {_no_peer(peer, topology)}"
        for field_, problem in _shared(service, topology):
            yield f"{file}: {field_}: {problem}"
        for event, peers in service.publishes.items():
            for peer in peers:
                if peer not in service.depends_on:
                    yield f"{file}: events.publishes.{event}: {peer} is not in dependsOn"
        for position, route in enumerate(service.routes):
            path = route.path.rstrip("/")
            taken = {
                owner
                for (other, method), owner in seen.items()
                if other == path and (not route.methods or method in {"any", *route.methods})
            }
            if taken:
                where = f"{file}: routes[{position}].path"
                yield f"{where}: {route.path} is already a route of {taken.pop()}"
            seen |= {(path, method): service.name for method in route.methods or ("any",)}


def _shared(service: Service, topology: Topology) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between releases of one package, as field and sentence."""
    root = topology.root / "services"
    if service.package != service.name:
        if not (root / service.package / "pyproject.toml").is_file():
            yield "package", f"there is no services/{service.package}/pyproject.toml"
        if (root / service.name / "pyproject.toml").is_file():
            yield "package", f"services/{service.name} has code of its own; remove one of them"
        for sibling in topology:
            if sibling.package == service.package and sibling.image != service.image:
                what = f"{sibling.name} runs the same package as {sibling.image}"
                yield "image.repository", f"{what}; give both the same image"
    if not service.database_of:
        return
    owner = topology.services.get(service.database_of)
    if owner is None or owner is service or not owner.migrates:
        yield "database.of", f"{service.database_of} is no other service with a database of its own"
    elif owner.package != service.package:
        what = f"{owner.name} is another package; a database is shared by releases of one"
        yield "database.of", f"{what}: ask {owner.name} through its API"


def _no_peer(peer: str, topology: Topology) -> str:
    if peer in topology.services:
        return "a service does not depend on itself"
    return f"there is no such service; there are {', '.join(topology.services)}"


def main(arguments: Iterable[str] | None = None) -> int:
    """Check the tree; print one line per service. Exit code 2 when a file is wrong."""
    if list(sys.argv[1:] if arguments is None else arguments):
        print("topology: takes no arguments", file=sys.stderr)
        return 2
    try:
        topology = load()
    except TopologyError as error:
        print(f"topology: {error}", file=sys.stderr)
        return 2
    for service in topology:
        peers = f" -> {', '.join(service.depends_on)}" if service.depends_on else ""
        print(f"{service.name}{peers}: {service.description}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
