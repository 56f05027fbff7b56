"""What `status` and `up` print of all processes stands in columns, on any screen."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from scripts.local import cli
from scripts.local.columns import aligned
from scripts.local.process import State
from scripts.local.view import LiveReporter
from tests.local.toy import build


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    """No line ends with a space."""
    assert aligned([("a", "b", ""), ("long", "", "c")]) == ["a     b", "long     c"]


def test_status_aligns_names_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """States and addresses begin in one column each."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    names = ("auth", "trainers-commands", "a-service-with-a-very-long-name")
    (tmp_path / "run").mkdir()
    state = {"state": "ready", "pid": None, "url": "http://localhost", "restarts": 0}
    processes = [{"name": name, **state, "last_error": None} for name in names]
    processes[0] |= {"restarts": 2, "last_error": "gone"}
    status = {"phase": "ready", "pid": 1, "processes": processes}
    (tmp_path / "run" / "status.json").write_text(json.dumps(status))
    monkeypatch.setattr("scripts.local.cli.held", lambda _: True)
    assert cli.main(build, ["status"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len({line.index("ready") for line in lines}) == 1
    assert len({line.index("http://") for line in lines}) == 1
    assert lines[0].endswith("http://localhost  restarts 2 last error: gone")


def test_the_table_of_a_narrow_screen_cuts_no_address() -> None:
    """What it shows is there to be clicked and copied."""
    spec = SimpleNamespace(
        name="trainers-commands", url="http://localhost:8110", docs="http://localhost:8110/docs"
    )
    out = io.StringIO()
    reporter = LiveReporter(Console(file=out, width=60))
    reporter._processes = [SimpleNamespace(spec=spec, status=SimpleNamespace(state=State.READY))]  # type: ignore[list-item]
    reporter.summary(["done"])
    assert out.getvalue().splitlines() == [
        "service            URL                    docs                        health",
        "trainers-commands  http://localhost:8110  http://localhost:8110/docs  ready",
        "done",
    ]
