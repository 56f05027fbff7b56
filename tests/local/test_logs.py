"""Logs: followed through rotation, bounded, readable, and the line that says what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import logs
from scripts.local import logfile
from tests.local.platform_handle import ROOT, eventually


def test_an_unknown_service_is_one_line_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2; nothing is followed."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    assert logs.main(["nope"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert all(name in said for name in ("orders", "items", "gateway", "runner"))


def test_following_survives_rotation_and_a_new_file(tmp_path: Path) -> None:
    """A log that is emptied, and one that is replaced: no line after that is lost."""
    path = tmp_path / "orders.log"
    follower = logs.Follower(path)
    assert follower.last(20) == []
    path.write_text("one\ntwo\n")
    assert follower.read() == ["one", "two"]
    with path.open("a") as file:
        file.write("thr")
    assert follower.read() == []
    with path.open("a") as file:
        file.write("ee\n")
    assert follower.read() == ["three"]
    logfile.rotate(path, max_bytes=1)
    with path.open("a") as file:
        file.write("four\n")
    assert follower.read() == ["four"]
    logfile.start_new(path)
    path.write_text("five\n")
    assert follower.read() == ["five"]
    follower.close()


def test_a_follower_in_a_pipe_ends_with_its_reader(tmp_path: Path) -> None:
    """`make logs | head -1` is no error."""
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "orders.log"
    log.write_text("first\n" * 10)
    follower = subprocess.Popen(
        [sys.executable, "-u", "-m", "scripts.logs", "orders"],
        cwd=ROOT,
        env={**os.environ, "SLIPWAY_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stderr is not None
    assert follower.stdout.readline() == "first\n"
    follower.stdout.close()

    def ended() -> bool:
        with log.open("a") as file:
            file.write("more\n")
        return follower.poll() is not None

    eventually(ended)
    assert follower.stderr.read() == ""
    follower.stderr.close()


def test_json_becomes_readable_and_other_lines_stay() -> None:
    """Time, level, event, then the fields; an exception below its line."""
    entry = {
        "event": "request",
        "level": "info",
        "timestamp": "2026-01-05T10:15:30.123456Z",
        "service": "orders",
        "status": 201,
    }
    assert (
        logs.pretty(json.dumps(entry), colour=False) == "10:15:30.123 info     request  status=201"
    )
    entry |= {"level": "error", "exception": "Traceback\nValueError: no"}
    shown = logs.pretty(json.dumps(entry), colour=True)
    assert shown.startswith("\x1b[31m")
    assert "ValueError: no" in shown
    assert logs.pretty("plain words", colour=True) == "plain words"


def test_rotation_bounds_a_log_that_a_process_keeps_open(tmp_path: Path) -> None:
    """The writer appends on; the file is small again; at most two older ones are kept."""
    path = tmp_path / "items.log"
    descriptor = logfile.open_log(path)
    try:
        for number in range(4):
            os.write(descriptor, b"x" * 100 + b"%d\n" % number)
            logfile.rotate(path, max_bytes=50)
        os.write(descriptor, b"last\n")
    finally:
        os.close(descriptor)
    assert path.read_text() == "last\n"
    assert path.with_name("items.log.1").read_text().endswith("3\n")
    assert path.with_name("items.log.2").read_text().endswith("2\n")
    assert not path.with_name("items.log.3").exists()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['{"level": "info", "event": "fine"}'], None),
        (['{"level": "error", "event": "lost"}', '{"level": "info", "event": "on"}'], "lost"),
        (
            ['{"level": "error", "event": "failed", "exception": "a\\nKeyError: b"}'],
            "failed: KeyError: b",
        ),
        (["Traceback:", "ValueError: no"], "ValueError: no"),
        (["[2026-01-05 10:15:30.123][42][warning][config] [a.cc:1] hm"], None),
        (
            ["[2026-01-05 10:15:30.123][42][critical][main] [a.cc:1] no"],
            "[2026-01-05 10:15:30.123][42][critical][main] [a.cc:1] no",
        ),
        (["{broken json"], None),
    ],
)
def test_the_last_error_of_a_log(lines: list[str], expected: str | None) -> None:
    """Errors of the services and of Envoy, tracebacks; not what is merely said."""
    assert logfile.last_error(lines) == expected
