"""Where the runner keeps what it makes: `.slipway`, unless SLIPWAY_HOME names another directory."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class RunnerError(Exception):
    """What stops a command: one line for the person at the terminal, and the exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Home:
    """The runner's directory. Nothing is written before a command needs it."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        """SLIPWAY_HOME, or `.slipway` in the current directory."""
        return cls(Path(os.environ.get("SLIPWAY_HOME") or ".slipway").resolve())

    @property
    def data(self) -> Path:
        """SQLite files."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What belongs to the current run: lock, state, process list, gateway configuration."""
        return self.root / "run"

    @property
    def secrets(self) -> Path:
        """The generated secrets (mode 0600). They outlive `make clean`."""
        return self.root / "secrets" / "local.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the process that runs the platform."""
        return self.run / "lock"

    @property
    def status(self) -> Path:
        """The last state written by the process that runs, or ran, the platform."""
        return self.run / "status.json"

    @property
    def children(self) -> Path:
        """The processes it started, so that the next command can end those a crash left behind."""
        return self.run / "children.json"

    def hold(self, name: str) -> Path:
        """While this file is there, the process stays stopped (`stop NAME`)."""
        return self.run / f"hold-{name}"

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the directories, readable by their owner only.

        Raises:
            RunnerError: the directory cannot be made or written.
        """
        try:
            for path in (self.root, self.data, self.logs, self.run, self.secrets.parent):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RunnerError(
                f"{error.filename}: {error.strerror}; free the path or set SLIPWAY_HOME"
            ) from error


def write_json(path: Path, value: Any) -> None:
    """Replace `path` (mode 0600) in one step, so that a reader sees the old or the new state."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(value, file, indent=2)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The value in `path`, or None when there is none or it is no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
