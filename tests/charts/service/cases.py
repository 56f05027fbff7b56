"""The cases of the service chart: their values, what is rendered from them, and the README's table.

    python -m tests.charts.service.cases --write

writes `expected/*.yaml` and the table in `charts/service/README.md` anew, after a template, a
default or the schema changed. Look at the difference before you commit it: it is the review.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

from scripts.gateway import merge
from scripts.topology import ROOT

HERE = Path(__file__).parent
CHART = ROOT / "charts" / "service"
README = CHART / "README.md"
EXPECTED = HERE / "expected"
CASES = tuple(sorted(file.stem for file in (HERE / "values").glob("*.yaml")))
BEGIN, END = "<!-- values: generated -->", "<!-- end of values -->"

Values = dict[str, Any]


def read(file: Path) -> Values:
    """Return a YAML file."""
    loaded: Values = yaml.safe_load(file.read_text()) or {}
    return loaded


def case(name: str) -> Values:
    """Return the values of one case: its file over the minimal one."""
    return merge(read(HERE / "values" / "minimal.yaml"), read(HERE / "values" / f"{name}.yaml"))


@functools.cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


@functools.cache
def _texts(values: str, name: str) -> dict[str, str]:
    found: dict[str, str] = _chart().render(json.loads(values), name=name, namespace="slipway")
    return found


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Render once for each set of values; return the texts by the template's path.

    Raises:
        HelmError: a value is refused.
    """
    name = str(values.get("name", "release"))
    found = _texts(json.dumps(values, sort_keys=True), name)
    return {file.removeprefix("service/templates/"): text for file, text in found.items()}


@functools.cache
def _manifests(values: str) -> list[dict[str, Any]]:
    return [
        document
        for file, text in texts(json.loads(values)).items()
        if file.endswith(".yaml")
        for document in yaml.load_all(text, yaml.CSafeLoader)  # as safe, but quick
        if document
    ]


def manifests(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every object of the release, hooks and tests included; parsed once, so only read."""
    return _manifests(json.dumps(values, sort_keys=True))


def refusal(values: Mapping[str, Any]) -> str:
    """Return what Helm says against the values; empty when it takes them."""
    try:
        texts(values)
    except helm_python.HelmError as error:
        return str(error)
    return ""


def example(name: str) -> str:
    """Return the rendered text of a case, as it is committed."""
    parts = [f"# Rendered from values/{name}.yaml by tests/charts/service/cases.py; do not edit.\n"]
    for file, text in sorted(texts(case(name)).items()):
        if file.endswith(".yaml") and text.strip():
            parts.append(f"---\n# {file}\n{text.strip()}\n")
    return "".join(parts)


def table() -> str:
    """Return the README's table of all values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, part, default in _fields(schema, schema, read(CHART / "values.yaml"), ""):
        rows.append(f"| `{path}` | {default} | {part['description'].replace('|', 'or')} |")
    return "\n".join(rows)


_MISSING = object()


def _fields(
    schema: Values, part: Values, defaults: Any, path: str
) -> Iterator[tuple[str, Values, str]]:
    """Yield (path, schema, default) of each value, in the schema's order."""
    for name, field in part["properties"].items():
        if not path and name == "global":
            continue
        below = resolve(schema, field)
        has_default = isinstance(defaults, Mapping) and name in defaults
        default = defaults[name] if has_default else _MISSING
        if "properties" in below and path.count(".") < 3:
            yield from _fields(schema, below, default, f"{path}{name}.")
        else:
            required = name in part.get("required", ())
            yield f"{path}{name}", below, _shown(default, required=required)


def resolve(schema: Values, field: Values) -> Values:
    """Return a field with its definition in; its own description wins."""
    if "$ref" not in field:
        return field
    definition: Values = schema["definitions"][field["$ref"].rsplit("/", 1)[1]]
    return {**definition, **{key: value for key, value in field.items() if key != "$ref"}}


def _shown(default: Any, *, required: bool) -> str:
    if default is _MISSING:
        return "**required**" if required else ""
    if default == "":
        return ""
    text = json.dumps(default)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def readme() -> str:
    """Return the README with a fresh table."""
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}",
        lambda _: f"{BEGIN}\n{table()}\n{END}",
        README.read_text(),
        flags=re.DOTALL,
    )


def main() -> int:
    """Write the generated files; exit code 2 without --write."""
    if sys.argv[1:] != ["--write"]:
        print("usage: python -m tests.charts.service.cases --write", file=sys.stderr)
        return 2
    EXPECTED.mkdir(exist_ok=True)
    for stale in {file.stem for file in EXPECTED.glob("*.yaml")} - set(CASES):
        (EXPECTED / f"{stale}.yaml").unlink()
    for name in CASES:
        (EXPECTED / f"{name}.yaml").write_text(example(name))
    README.write_text(readme())
    print(f"wrote {len(CASES)} examples and the table of {README.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
