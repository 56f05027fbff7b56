"""What the service chart refuses: by the schema, with the field's name, or with a sentence."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from scripts.gateway import merge
from tests.charts.service.cases import CASES, CHART, HERE, case, manifests, read, refusal, resolve

REFUSED = sorted(file.stem for file in (HERE / "refused").glob("*.yaml"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def refused(name: str) -> tuple[str, str]:
    """Return what a file of refused/ must be told, and what Helm says."""
    file = HERE / "refused" / f"{name}.yaml"
    expected = file.read_text().splitlines()[0].removeprefix("# says: ")
    return expected, refusal(merge(case("minimal"), read(file)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_value_is_refused_with_its_sentence(name: str):
    """Over values that are fine, each file is refused, and the sentence names the field."""
    expected, said = refused(name)
    assert expected in said


def test_every_sentence_of_the_chart_is_said_by_some_file():
    """No refusal without its case: each line of _validate.tpl that is text is met."""
    heard = "\n".join(refused(name)[1] for name in REFUSED)
    silent, sentences = [], 0
    source = (CHART / "templates" / "_validate.tpl").read_text()
    for line in re.sub(r"\{\{-.*?\}\}", "", source, flags=re.DOTALL).splitlines():
        if not line.strip():
            continue
        if "has no key" in line:  # Needs a cluster to look at: see the tests of the e2e run.
            continue
        sentences += 1
        parts = re.split(r"\{\{.*?\}\}", line)
        if not re.search(".*".join(map(re.escape, parts)), heard):
            silent.append(line)
    assert silent == []
    assert sentences > 45


def test_all_problems_are_said_at_once():
    """Nobody mends one line only to meet the next."""
    values = merge(
        case("minimal"),
        {"replicas": 3, "rollout": {"terminationGracePeriodSeconds": 1}, "slo": {"owner": "tbd"}},
    )
    said = refusal(values)
    assert "books: replicas: " in said
    assert "\nrollout.terminationGracePeriodSeconds: " in said
    assert "\nslo.owner: " in said
    assert said.count("\n") == 2


@pytest.mark.parametrize("name", CASES)
def test_what_is_right_is_taken(name: str):
    assert refusal(case(name)) == ""


ALLOWED: dict[str, dict[str, Any]] = {
    "a budget that leaves one": {"disruptionBudget": {"minAvailable": "50%"}},
    "a budget of all but one": {
        "autoscaling": {"minReplicas": 4},
        "disruptionBudget": {"minAvailable": 3},
    },
    "a longer grace period": {"rollout": {"terminationGracePeriodSeconds": 43}},
    "no preStop": {"rollout": {"preStopSeconds": 0, "terminationGracePeriodSeconds": 30}},
    "nobody at all": {"autoscaling": {"mode": "none"}, "replicas": 0},
    "memory in two units": {
        "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1.1G"}}
    },
    "cpu in two units": {"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "1.5"}}},
    "latest on a laptop's cluster": {"image": {"tag": "latest"}},
    "an autoscaler on requests per second": {
        "autoscaling": {"targetCPUUtilization": 0, "requestsPerSecond": 0.5}
    },
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_wrong_is_taken(name: str):
    """The refusals stop where the harm does."""
    assert refusal(merge(case("minimal"), ALLOWED[name])) == ""


def mappings(values: Any, part: dict[str, Any], path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every mapping in `values` that the schema closes."""
    part = resolve(SCHEMA, part)
    if isinstance(values, dict):
        if part.get("additionalProperties") is False:
            yield path
        for name, value in values.items():
            below = part.get("properties", {}).get(name, part.get("additionalProperties"))
            if isinstance(below, dict):
                yield from mappings(value, below, (*path, name))
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from mappings(value, part["items"], (*path, i))


# `global` is Helm's own and open; what stands below `free` is Kubernetes' to check.
FULL = merge(read(CHART / "values.yaml"), case("full"))
LEVELS = list(mappings(FULL, SCHEMA, ()))


def test_a_typo_is_refused_at_every_level():
    """Wherever a mapping stands, an unknown field in it is refused by its name and place."""
    assert len(LEVELS) > 60
    for path in LEVELS:
        values = copy.deepcopy(FULL)
        target: Any = values
        for step in path:
            target = target[step]
        target["speling"] = 1
        where = "".join(f"/{step}".replace("~", "~0") for step in path)
        said = refusal(values)
        assert "'speling' not allowed" in said, path
        assert f"at '{where}'" in said.replace("~1", "/"), path


def test_the_schema_is_closed_and_described():
    """Every object says which fields it has, and every field what it is."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    def look(part: Any, path: str) -> None:
        if isinstance(part, list):
            for i, item in enumerate(part):
                look(item, f"{path}[{i}]")
        if not isinstance(part, dict):
            return
        if part.get("type") == "object" and path != ".properties.global":
            assert "additionalProperties" in part or "maxProperties" in part, path
        for name, value in part.items():
            if name == "properties" and not path.startswith(".definitions"):
                for field, below in value.items():
                    shown = resolve(SCHEMA, below)
                    assert shown.get("description") or "enum" in shown or "$ref" in below, (
                        f"{path}.{field}"
                    )
            look(value, f"{path}.{name}")

    look(SCHEMA, "")


OPTIONAL = {
    "name", "description", "port", "slo", "client", "replicas", "global", "image.repository",
    "package", "database.of",
    "disruptionBudget.minAvailable", "resources.requests.ephemeral-storage",
    "resources.limits.cpu", "resources.limits.ephemeral-storage",
    "autoscaling.behavior.scaleUp.tolerance", "autoscaling.behavior.scaleDown.tolerance",
    "affinity.nodeAffinity", "affinity.podAffinity", "affinity.podAntiAffinity",
}  # fmt: skip


def test_every_default_has_a_schema_and_every_schema_a_default():
    """values.yaml and values.schema.json list the same fields, but for what has no default."""
    missing = set()

    def compare(values: dict[str, Any], part: dict[str, Any], path: str) -> None:
        known = part["properties"]
        assert set(values) <= set(known), path
        for name, field in known.items():
            below = resolve(SCHEMA, field)
            if name not in values:
                missing.add(f"{path}{name}")
            elif "properties" in below:
                compare(values[name], below, f"{path}{name}.")

    compare(read(CHART / "values.yaml"), SCHEMA, "")
    assert missing == OPTIONAL


def test_without_values_helm_says_what_a_release_must_give():
    """The commonest mistake with helm: no -f."""
    said = refusal({})
    for field in ("name", "description", "port", "slo"):
        assert f"'{field}'" in said
    assert "'repository'" in said


def test_a_number_keeps_its_digits_on_the_way():
    """Go would write 1048576 as 1.048576e+06."""
    config = next(m for m in manifests(case("full")) if m["kind"] == "ConfigMap")["data"]
    assert config["BOOKS_MAX_BODY_BYTES"] == "1048576"
    assert config["BOOKS_ACCESS_LOG"] == "false"
    assert config["BOOKS_TOKEN_LEEWAY_SECONDS"] == "2.5"
