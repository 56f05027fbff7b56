"""Prometheus' own tool: its rule tests and its parser, for rules and panels."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import rules

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: apt-get install --no-install-recommends prometheus",
)


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run promtool; return its exit status and everything it said."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def check_rules(
    folder: Path, tests: Iterable[Mapping[str, Any]], name: str, every: str = "1m"
) -> None:
    """Run rule tests on the rule file of this name; fail with what promtool says.

    `every` is how often the rules are evaluated: hours of a steady state need it less often.
    """
    content = {
        "rule_files": [str(rules.FOLDER / f"{name}.yaml")],
        "evaluation_interval": every,
        "tests": list(tests),
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    status, said = run("test", "rules", file)
    assert status == 0, said


def parse_errors(folder: Path, queries: Mapping[str, str]) -> str:
    """Return what Prometheus' parser has against these queries, by name; "" if nothing."""
    found = [
        {"record": f"q:{number}", "labels": {"query": name}, "expr": query}
        for number, (name, query) in enumerate(queries.items())
    ]
    file = folder / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": found}]}))
    status, said = run("check", "rules", file)
    return "" if status == 0 else said


@functools.cache
def alerts() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the alert rules of the committed files by (file, alert, window or "")."""
    found = {}
    for file in sorted(rules.FOLDER.glob(rules.PATTERN)):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    key = (file.stem, rule["alert"], rule["labels"].get("window", ""))
                    found[key] = rule
    return found


def series(metric: str, values: str, /, **labels: str) -> dict[str, str]:
    """Return one input series of a rule test."""
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return {"series": f"{metric}{{{inside}}}", "values": values}
