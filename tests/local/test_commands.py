"""Commands of one service, run with the settings that the runner gives it."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import topology
from tests.local.platform_handle import ROOT, Platform
from tests.local.test_readme import PAGES

# Their commands are for a tree, an image or a zip; those of the others are for data that is there.
_OF_ANY_SERVICE = {"docs/chassis.md", "docs/images.md", "docs/lambda.md"}


@pytest.fixture
def slipway(tmp_path: Path) -> Iterator[Platform]:
    """The real platform in a home of its own."""
    platform = Platform(tmp_path / "home", ("-m", "scripts.local"))
    yield platform
    platform.end()


@pytest.mark.system
@pytest.mark.timeout(300)
def test_run_reaches_the_commands_of_the_chassis_and_of_the_service(slipway: Platform) -> None:
    """On the data of the platform, with its secrets and subscribers."""
    assert slipway.run("run", "orders", "migrate", "--check").returncode == 1
    assert slipway.run("migrate").returncode == 0
    before = {file.name for file in (slipway.home / "data").iterdir()}
    assert slipway.run("run", "orders", "migrate", "--check").returncode == 0

    lag = slipway.run("run", "trainers-queries", "lag")
    assert lag.stdout.startswith("trainers: version 0 of 0, "), lag.stderr
    rotated = slipway.run("run", "auth", "rotate-keys")
    assert rotated.stdout.startswith("published key "), rotated.stderr
    assert {file.name for file in (slipway.home / "data").iterdir()} == before  # none beside them

    _leave_a_dead_letter(slipway.home / "data" / "orders.db")
    listed = slipway.run("run", "orders", "outbox", "list", "--state", "dead")
    assert "http://old/events" in listed.stdout, listed.stderr
    new = "http://127.0.0.1:18104/events"
    redirect = ("run", "orders", "outbox", "redirect", "http://old/events", new)
    assert slipway.run(*redirect).returncode == 2  # no subscriber of these settings
    index = list(topology.load().services).index("notifications")
    slipway.env["SLIPWAY_PORT_BASE"] = str(18104 - index)
    moved = slipway.run(*redirect)
    assert (moved.returncode, moved.stdout) == (0, "redirected 1\n"), moved.stderr
    assert slipway.run("run", "orders", "outbox", "replay", "--all").stdout == "replayed 1\n"


def _leave_a_dead_letter(database: Path) -> None:
    """One event that nobody took."""
    now = "2026-05-04 12:00:00.000000"
    values: dict[str, object] = {
        "id": "evt-1", "subscriber": "http://old/events", "type": "order.confirmed",
        "subject": "o-1", "state": "dead", "attempts": 9, "created_at": now, "available_at": now,
    }  # fmt: skip
    with sqlite3.connect(database) as connection:
        columns = connection.execute("PRAGMA table_info(outbox)").fetchall()
        for _, name, kind, required, default, key in columns:
            if required and default is None and not key and name not in values:
                values[name] = 0 if "INT" in kind else now if "DATE" in kind else "{}"
        marks = ", ".join("?" * len(values))
        connection.execute(
            f"INSERT INTO outbox ({', '.join(values)}) VALUES ({marks})",
            list(values.values()),
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["", "lag"], "slipway: which service? SERVICE=NAME; known: auth, "),
        (["order", "lag"], "slipway: order: no such service; known: auth, "),
        (["orders", "lag"], "slipway: orders: no such command lag; known: migrate, openapi, "),
        (["orders"], "slipway: orders: no such command; known: migrate, openapi, "),
    ],
)
def test_a_command_that_is_not_there_is_one_line(
    slipway: Platform, words: list[str], said: str
) -> None:
    """With what is there."""
    done = slipway.run("run", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if str(page.relative_to(ROOT)) not in _OF_ANY_SERVICE],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_pages_run_no_command_of_a_service_without_its_settings(page: Path) -> None:
    """By hand it works on another database: pages say `make run`, or `kubectl exec ... --`."""
    modules = {service.module for service in topology.load()}
    own = [m for m in modules if (ROOT / "services" / m / m / "__main__.py").exists()]
    bare = rf"(?<!-- )python -m (?:(?:{'|'.join(own)})\b|chassis (?:outbox|migrate|seed))[^`\n]*"
    assert re.findall(bare, page.read_text()) == []


def test_ctrl_c_while_it_imports_is_no_traceback(tmp_path: Path) -> None:
    """The first module that the command imports is the one that Ctrl-C meets."""
    (tmp_path / "argparse.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise AssertionError('went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "scripts.local", "up"],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "SLIPWAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        # Ctrl-C may be ignored where the tests run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
