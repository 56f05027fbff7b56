"""A handle on a runner in a process of its own, for the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scripts.local.procs import start_mark

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def eventually(get: Callable[[], T | None], seconds: float = 30.0) -> T:
    """The first true value of `get`; fails the test when there is none in time."""
    end = time.monotonic() + seconds
    while not (value := get()):
        assert time.monotonic() < end, f"nothing after {seconds:g} s: {get}"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    return start_mark(pid) is not None


@dataclass
class Platform:
    """Runs commands of one runner (`program`) on one home."""

    home: Path
    program: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a command: free ports, the test's own home."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SLIPWAY_HOME": str(self.home),
            "SLIPWAY_PORT_BASE": "0",
            "SLIPWAY_GATEWAY_PORT": "0",
            **self.env,
            **more,
        }

    def run(self, *words: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, *self.program, *words],
            cwd=ROOT,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start `up` in the foreground of a session of its own, as a terminal would."""
        process = subprocess.Popen(
            [sys.executable, *self.program, "up", *words],
            cwd=ROOT,
            env=self.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell lets what it starts in the background ignore Ctrl-C; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        self.started.append(process)
        return process

    def status(self) -> dict[str, Any]:
        """The last state that the runner wrote."""
        try:
            return dict(json.loads((self.home / "run" / "status.json").read_text()))
        except FileNotFoundError:
            return {"phase": None, "pid": None, "processes": []}

    def process(self, name: str) -> dict[str, Any]:
        """The state of one process."""
        return next((p for p in self.status()["processes"] if p["name"] == name), {"state": None})

    def pids(self) -> list[int]:
        """The pids of everything that runs."""
        return [p["pid"] for p in self.status()["processes"] if p["pid"]]

    def wait_ready(self, process: subprocess.Popen[str] | None = None) -> None:
        """Wait until everything is ready."""

        def ready() -> bool:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"the runner ended: {process.communicate()[0]}")
            status = self.status()
            mine = process is None or status["pid"] == process.pid
            return bool(mine and status["phase"] == "ready")

        eventually(ready, 60)

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if (self.home / "run").exists():
            self.run("down")
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
