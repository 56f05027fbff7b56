"""The running platform with a real Prometheus and the trace view, as the tests see them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import rules
from scripts.local.procs import end_with_parent
from tests.local.platform_handle import ROOT, eventually
from tests.system.harness import Shop

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed: apt-get install --no-install-recommends prometheus",
)

FACTOR = 30
"""Minutes of the rules are so many times shorter in the tests; the mechanism is the same."""
INTERVAL = "2s"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shorten(text: str) -> str:
    """Return a rule file with every time divided by `FACTOR`: windows, waits, ages.

    Rules are evaluated each second instead of each 30, so counts over a window stay what they are.
    A loop's waits are not shorter here, so its restarts are counted over twice the time.
    """

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * _SECONDS[found[3]] // FACTOR}s{found[4]}"

    content = yaml.safe_load(text)
    for group in content["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            expr = re.sub(r"(restarts_total\[)15m", r"\g<1>30m", rule["expr"])
            expr = re.sub(r"(\[)(\d+)([smhd])(\])", shorter, expr)
            expr = re.sub(r"\b30 \* sum_over_time", "1 * sum_over_time", expr)
            rule["expr"] = re.sub(
                r"(_age_seconds\) > )(\d+)$", lambda m: f"{m[1]}{int(m[2]) // FACTOR}", expr
            )
            if "for" in rule:
                rule["for"] = re.sub(r"()(\d+)([smhd])()", shorter, rule["for"])
    return yaml.safe_dump(content, sort_keys=False, width=10_000)


def short_rules(folder: Path) -> Path:
    """Write the rules of the tree, shortened, into `folder`."""
    folder.mkdir()
    for file in sorted(rules.FOLDER.glob(rules.PATTERN)):
        (folder / file.name).write_text(shorten(file.read_text()))
    return folder


@dataclass
class Watched:
    """A platform, and the Prometheus that `make observe` starts for it."""

    shop: Shop
    process: subprocess.Popen[str]
    url: str

    @classmethod
    def open(cls, shop: Shop) -> Watched:
        """Start it as a person would, with the shortened rules."""
        home = shop.platform.home
        # Grafana and Jaeger stay out of it, wherever they are installed.
        binaries = home / "bin"
        binaries.mkdir()
        (binaries / "prometheus").symlink_to(shutil.which("prometheus") or "")
        env = shop.platform.environment(PATH=str(binaries), SLIPWAY_PROMETHEUS_PORT="0")
        words = ["--rules", str(short_rules(home / "rules")), "--interval", INTERVAL]
        with (home / "observe.log").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "scripts.observe", *words],
                cwd=ROOT,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )
        try:
            status = home / "observe" / "run" / "status.json"

            def ready() -> str | None:
                assert process.poll() is None, (home / "observe.log").read_text()
                with suppress(OSError, ValueError):
                    found = json.loads(status.read_text())
                    if found["phase"] == "ready":
                        return f"http://127.0.0.1:{found['processes'][0]['port']}"
                return None

            return cls(shop, process, eventually(ready, 60))
        except BaseException:
            process.kill()
            raise

    def close(self) -> int:
        """End it as Ctrl-C does; the exit code."""
        self.process.send_signal(2)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def api(self, path: str, **parameters: str) -> Any:
        """Ask Prometheus; what it answers under `data`."""
        answer = self.shop._http.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expr: str) -> dict[frozenset[tuple[str, str]], float]:
        """The present values of an expression, by labels."""
        found = self.api("query", query=expr)
        assert found["resultType"] in {"vector", "scalar"}, found
        if found["resultType"] == "scalar":
            return {frozenset(): float(found["result"][1])}
        return {
            frozenset(each["metric"].items()): float(each["value"][1]) for each in found["result"]
        }

    def value(self, expr: str) -> float:
        """The sum of the present values; 0 when there is none."""
        return sum(self.query(expr).values())

    def firing(self, name: str, **labels: str) -> dict[str, str] | None:
        """The labels of a firing alert of this name that has these labels."""
        for alert in self.api("alerts")["alerts"]:
            found = alert["labels"]
            if (
                alert["state"] == "firing"
                and found["alertname"] == name
                and labels.items() <= found.items()
            ):
                return dict(found)
        return None

    def fires(
        self, name: str, *, during: Callable[[], object] | None = None, **labels: str
    ) -> None:
        """Wait until the alert fires; `during` is done again and again meanwhile."""
        self._until(lambda: self.firing(name, **labels) is not None, during)

    def each_fires(self, expected: Mapping[str, Mapping[str, str]]) -> None:
        """Wait until each of these alerts, by name and labels, has fired at some time."""
        left = dict(expected)

        def done() -> bool:
            for name in [name for name in left if self.firing(name, **left[name])]:
                del left[name]
            return not left

        self._until(done, None)

    def resolves(
        self, name: str, *, during: Callable[[], object] | None = None, **labels: str
    ) -> None:
        """Wait until the alert does not fire any more."""
        self._until(lambda: self.firing(name, **labels) is None, during)

    def _until(self, done: Callable[[], bool], during: Callable[[], object] | None) -> None:
        end = time.monotonic() + 150
        while not done():
            assert time.monotonic() < end, self.api("alerts")
            if during is not None:
                during()
            time.sleep(0.2)


def trace_of(shop: Shop, trace_id: str) -> list[dict[str, Any]]:
    """The spans of one trace in the trace view, by their start; none if it does not have it."""
    answer = shop.call("GET", f"/api/traces/{trace_id}", at="traces")
    return list(answer.json()["spans"]) if answer.status_code == 200 else []
