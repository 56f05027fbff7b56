"""The topology: what services/*/service.yaml may say, and how a mistake is reported."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts import topology
from scripts.topology import ROOT, TopologyError

SIX = ("auth", "info", "inventory", "items", "notifications", "orders")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree's service.yaml files and their schema."""
    projects = ROOT.glob("services/*/pyproject.toml")
    for file in [*ROOT.glob("services/*/service.yaml"), *projects, ROOT / topology.SCHEMA]:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return tmp_path


def change(tree: Path, service: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit one service.yaml of a copied tree."""
    file = tree / "services" / service / "service.yaml"
    values = yaml.safe_load(file.read_text())
    edit(values)
    file.write_text(yaml.safe_dump(values))


def test_the_tree_is_read():
    """All services of the order path are there, with what the others rely on."""
    services = topology.load()
    assert set(SIX) <= set(services.services)
    orders = services["orders"]
    assert orders.depends_on == ("auth", "items", "inventory", "notifications", "stream")
    assert orders.publishes["order.confirmed"] == ("notifications", "stream")
    assert orders.secrets == ("ORDERS_CLIENT_SECRET",)
    assert orders.database
    assert not services["info"].database
    assert services["stream"].valkey
    assert not orders.valkey
    assert services["auth"].slo.owner == "identity"
    assert services["auth"].routes[1].rate_limit == topology.RateLimit(5, 20, "address")


def test_variables_follow_from_the_file():
    """Peers and subscribers become the variables that the service's settings read."""
    variables = topology.load()["orders"].environment(lambda peer: f"http://{peer}")
    assert variables["ORDERS_ITEMS_URL"] == "http://items"
    assert variables["ORDERS_LOG_LEVEL"] == "info"
    subscribers = json.loads(variables["ORDERS_SUBSCRIBERS"])
    urls = ["http://notifications/events", "http://stream/events"]
    assert subscribers["order.confirmed"] == urls
    assert all(name.startswith("ORDERS_") for name in variables)


def test_the_start_order_puts_peers_first(tree: Path):
    """A service comes after those it calls, and a circle is no reason to fail."""
    for services in (topology.load(), _circle(tree)):
        names = [service.name for service in services.start_order]
        assert sorted(names) == sorted(services.services)
    names = [service.name for service in topology.load().start_order]
    assert names.index("auth") < names.index("items") < names.index("orders")


def _circle(tree: Path) -> topology.Topology:
    change(tree, "auth", lambda v: v.update(dependsOn={"orders": {}}))
    return topology.load(tree)


def test_the_schema_is_a_schema_and_explains_itself():
    """Every field of service.yaml has a description or names a definition, and is closed."""
    schema = json.loads((ROOT / topology.SCHEMA).read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    for name, field in schema["properties"].items():
        assert field.get("description"), name
    for path, part in _objects(schema):
        if path != ".properties.global":
            assert "additionalProperties" in part, path


def _objects(part: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(part, list):
        return [found for i, item in enumerate(part) for found in _objects(item, f"{path}[{i}]")]
    if not isinstance(part, dict):
        return []
    found = [(path, part)] if part.get("type") == "object" else []
    for key, value in part.items():
        found += _objects(value, f"{path}.{key}")
    return found


Mistake = tuple[str, Callable[[dict[str, Any]], object], str]


def path(new: str) -> Callable[[dict[str, Any]], object]:
    """Return an edit of the first route's path."""
    return lambda v: v["routes"][0].update(path=new)


WRONG: dict[str, Mistake] = {
    "a typo at the top": (
        "orders", lambda v: v.update(dependson={}),
        "orders/service.yaml: dependson: unknown field"),
    "a typo below": (
        "orders", lambda v: v["routes"][0].update(timeout=3),
        "orders/service.yaml: routes[0].timeout: unknown field; known are auth, exact"),
    "a missing field": ("items", lambda v: v.pop("slo"), "items/service.yaml: slo: is missing"),
    "a missing field below": (
        "items", lambda v: v["routes"][0].pop("auth"), "routes[0].auth: is missing"),
    "a wrong choice": (
        "items", lambda v: v["routes"][0].update(auth="yes"),
        "routes[0].auth: 'yes' is none of required, optional, none"),
    "a wrong type": (
        "items", lambda v: v.update(port="8000"), "port: '8000' is not of type 'integer'"),
    "metrics for everybody": (
        "items", path("/metrics"), "routes[0].path: '/metrics' is not for the gateway"),
    "the event sink, versioned": (
        "stream", lambda v: v["routes"][1].pop("methods"), "is not for the gateway"),
    "the event sink": ("items", path("/events/x"), "is not for the gateway"),
    "internal paths": ("auth", path("/internal/exchange"), "is not for the gateway"),
    "a version in the path": ("items", path("/v1/items"), "is not for the gateway"),
    "a version with all below it": ("items", path("/v2"), "routes[0].exact: is missing"),
    "a version and a version before it": (
        "predict", lambda v: v["routes"][2].update(versioned=True), "routes[2].versioned: "),
    "a dotted path": ("items", path("/items/../metrics"), "is not for the gateway"),
    "everything": ("items", path("/"), "routes[0].path: '/' does not"),
    "another name": (
        "items", lambda v: v.update(name="itemz"), "name: 'itemz' is not the folder's"),
    "another prefix": (
        "items", lambda v: v["env"].update(ORDERS_X="1"),
        "env.ORDERS_X: does not start with ITEMS_"),
    "a secret in the open": (
        "orders", lambda v: v["env"].update(ORDERS_CLIENT_SECRET="1"),
        "env.ORDERS_CLIENT_SECRET: is a secret too"),
    "a peer that is not there": (
        "orders", lambda v: v["dependsOn"].update(stock={}),
        "dependsOn.stock: there is no such service"),
    "itself as a peer": (
        "orders", lambda v: v["dependsOn"].update(orders={}),
        "a service does not depend on itself"),
    "a subscriber that is no peer": (
        "orders", lambda v: v["dependsOn"].pop("notifications"),
        "events.publishes.order.cancelled: notifications is not in dependsOn"),
    "a route twice": (
        "info", lambda v: v["routes"].append({"path": "/items", "auth": "none"}),
        "items/service.yaml: routes[0].path: /items is already a route of info"),
    "more than the most": (
        "info", lambda v: v["autoscaling"].update(minReplicas=9),
        "autoscaling.minReplicas: is more than maxReplicas"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line_with_file_and_field(tree: Path, mistake: str):
    """Whoever reads the line knows where to look."""
    service, edit, expected = WRONG[mistake]
    change(tree, service, edit)
    with pytest.raises(TopologyError) as caught:
        topology.load(tree)
    text = str(caught.value)
    assert expected in text
    assert text.startswith("services/")
    assert "\n" not in text


def test_a_key_written_twice_is_refused(tree: Path):
    """YAML would keep the last one without a word."""
    file = tree / "services" / "items" / "service.yaml"
    file.write_text(file.read_text() + "port: 9000\n")
    with pytest.raises(TopologyError, match=r"items/service\.yaml: port: written twice"):
        topology.load(tree)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\tx: 1", "name: !!python/object:os.system x"])
def test_what_is_no_service_file_is_refused(tree: Path, text: str):
    """Broken YAML, another shape and YAML's tags are one line too."""
    (tree / "services" / "items" / "service.yaml").write_text(text)
    with pytest.raises(TopologyError, match=r"^services/items/service\.yaml: ") as caught:
        topology.load(tree)
    assert "\n" not in str(caught.value)


def test_a_tree_without_services_is_said(tmp_path: Path):
    """The usual cause is a wrong directory."""
    with pytest.raises(TopologyError, match="run this from the tree's root"):
        topology.load(tmp_path)


def test_the_same_path_may_be_split_by_method(tree: Path):
    """Reading without and writing with a token is two routes of one path."""

    def split(values: dict[str, Any]) -> None:
        values["routes"] = [
            {"path": "/items", "auth": "none", "methods": ["GET"]},
            {"path": "/items", "auth": "required", "methods": ["POST"]},
        ]

    change(tree, "items", split)
    assert len(topology.load(tree)["items"].routes) == 2
    change(tree, "info", lambda v: v["routes"].append({"path": "/items", "auth": "none"}))
    with pytest.raises(TopologyError, match="already a route"):
        topology.load(tree)


def two_sides(tree: Path, **queries: Any) -> None:
    """Split items of a copied tree into two releases of one package."""
    values = yaml.safe_load((tree / "services/items/service.yaml").read_text())
    (tree / "services/items/service.yaml").unlink()
    for side, more in (
        ("writes", {}),
        ("reads", {"database": {"enabled": True, "of": "items-writes"}}),
    ):
        own = {**values, "name": f"items-{side}", "package": "items", "routes": [], **more}
        own |= queries if side == "reads" else {}
        folder = tree / "services" / f"items-{side}"
        folder.mkdir()
        (folder / "service.yaml").write_text(yaml.safe_dump(own))
    change(tree, "orders", lambda v: v["dependsOn"].update({"items-reads": {}}))
    change(tree, "orders", lambda v: v["dependsOn"].pop("items"))


def test_releases_of_one_package_share_image_prefix_and_database(tree: Path):
    """One image is built, one release migrates, and each process knows its own name."""
    two_sides(tree)
    found = topology.load(tree)
    writes, reads = found["items-writes"], found["items-reads"]
    assert (writes.module, reads.module, writes.prefix, reads.prefix) == (
        "items", "items", "ITEMS_", "ITEMS_",
    )  # fmt: skip
    assert (writes.migrates, reads.migrates) == (True, False)
    assert [service.package for service in found.packages].count("items") == 1
    names = [service.name for service in found.start_order]
    assert names.index("items-writes") < names.index("items-reads") < names.index("orders")
    environment = reads.environment(lambda peer: f"http://{peer}")
    assert environment["ITEMS_SERVICE_NAME"] == "items-reads"
    urls = found["orders"].environment(lambda peer: f"http://{peer}")
    assert urls["ORDERS_ITEMS_READS_URL"] == "http://items-reads"
    assert "AUTH_SERVICE_NAME" not in found["auth"].environment(str)


SHARED_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such code": (
        {"package": "itemz", "env": {}},
        "package: there is no services/itemz/pyproject.toml"),
    "another image": (
        {"image": {"repository": "slipway/other"}},
        "image.repository: items-writes runs the same package as slipway/items"),
    "nobody's database": (
        {"database": {"enabled": True, "of": "nobody"}},
        "database.of: nobody is no other service with a database of its own"),
    "its own database": (
        {"database": {"enabled": True, "of": "items-reads"}},
        "database.of: items-reads is no other service with a database of its own"),
    "a stranger's database": (
        {"database": {"enabled": True, "of": "inventory"}},
        "database.of: inventory is another package; a database is shared by releases of one"),
    "a database that is off": (
        {"database": {"enabled": False, "of": "items-writes"}},
        "database.of: the database is not enabled"),
    "a variable of the release's name": (
        {"env": {"ITEMS_READS_LOG_LEVEL": "info", "X_Y": "1"}},
        "env.X_Y: does not start with ITEMS_"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SHARED_WRONG)
def test_releases_that_do_not_fit_together_are_refused(tree: Path, mistake: str):
    """Each in one line, with the file, the field and the fix."""
    wrong, expected = SHARED_WRONG[mistake]
    two_sides(tree, **wrong)
    with pytest.raises(TopologyError) as caught:
        topology.load(tree)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("services/items-")


def test_a_release_with_two_codes_is_refused(tree: Path):
    """Code in its own folder would never run."""
    two_sides(tree)
    shutil.copy(tree / "services/items/pyproject.toml", tree / "services/items-reads")
    with pytest.raises(TopologyError, match="services/items-reads has code of its own"):
        topology.load(tree)


def test_the_tool_ends_with_2_on_bad_input(capsys: pytest.CaptureFixture[str]):
    """And with one line per service when all is well."""
    assert topology.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(topology.load().services)
    assert topology.main(["--nonsense"]) == 2
    assert capsys.readouterr().err == "topology: takes no arguments\n"


@pytest.mark.parametrize("service", tuple(topology.load()), ids=lambda service: service.name)
def test_every_variable_is_a_setting(service: topology.Service):
    """What service.yaml sets or implies, the service's settings class knows by that name."""
    settings = importlib.import_module(f"{service.module}.settings").Settings
    variables = {*service.environment(lambda peer: f"http://{peer}"), *service.secrets}
    if service.database:
        variables.add(f"{service.prefix}DATABASE_URL")
    # A peer that is only told events is in <NAME>_SUBSCRIBERS; nobody calls it by its own URL.
    told = {peer for peers in service.publishes.values() for peer in peers}
    variables -= {
        variable
        for peer in told
        if (variable := f"{service.prefix}{peer.upper().replace('-', '_')}_URL")
        and f"{peer.replace('-', '_')}_url" not in settings.model_fields
    }
    for variable in sorted(variables):
        assert variable.removeprefix(service.prefix).lower() in settings.model_fields, variable


@pytest.mark.parametrize("service", tuple(topology.load()), ids=lambda service: service.name)
def test_a_client_has_a_secret(service: topology.Service):
    """A service with scopes of its own is given a client secret, and only such a one."""
    assert bool(service.client_scopes) == (f"{service.prefix}CLIENT_SECRET" in service.secrets)
