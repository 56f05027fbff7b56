"""Log files that processes append to by themselves, bounded in size, and the last error in them.

The services write straight into their file: no byte goes through the runner, so the runner costs
nothing under load and no line is lost when it dies. Rotation copies the file and empties it, which
works because every writer opened it for appending.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 2
_TAIL_BYTES = 64 * 1024
_LINE_WIDTH = 300
# Until it has read its configuration, Envoy's lines are text:
# [2026-01-05 10:15:30.123][42][warning][config] [source] words
_ENVOY_HARMLESS = re.compile(r"^\[[^]]+\]\[\d+\]\[(trace|debug|info|warning)\]")
_BAD_LEVELS = {"error", "critical", "fatal", "exception"}


def open_log(path: Path) -> int:
    """A descriptor to append to, in a file that only the owner reads."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def start_new(path: Path) -> None:
    """Put the log of an earlier run aside."""
    if path.exists() and path.stat().st_size:
        _shift(path)
        path.replace(_backup(path, 1))


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Copy and empty the log when it grew past its bound."""
    if not path.exists() or path.stat().st_size <= max_bytes:
        return
    _shift(path)
    shutil.copyfile(path, _backup(path, 1))
    os.truncate(path, 0)


def _backup(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _shift(path: Path) -> None:
    for number in range(BACKUPS - 1, 0, -1):
        if _backup(path, number).exists():
            _backup(path, number).replace(_backup(path, number + 1))


def tail(path: Path, since: int = 0, max_bytes: int = _TAIL_BYTES) -> tuple[list[str], int]:
    """The lines written after offset `since` (at most the last `max_bytes`), and the end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < since:  # emptied by a rotation
                since = 0
            file.seek(max(since, size - max_bytes))
            text = file.read(size - file.tell()).decode(errors="replace")
    except FileNotFoundError:
        return [], 0
    return [line for line in text.splitlines() if line.strip()], size


def last_words(path: Path, since: int = 0) -> str | None:
    """The last error that a process wrote after offset `since`: why it died, if it could tell."""
    return last_error(tail(path, since)[0])


def last_error(lines: list[str]) -> str | None:
    """The last line that is a log entry of level error or above, or no log entry at all."""
    for line in reversed(lines):
        if not line.startswith("{"):
            if _ENVOY_HARMLESS.match(line):
                continue
            return summarise(line)
        if (entry := parse(line)) and str(entry.get("level", "")).lower() in _BAD_LEVELS:
            return summarise(line)
    return None


def parse(line: str) -> dict[str, object] | None:
    """A JSON log line as a map; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def summarise(line: str) -> str:
    """One readable line of bounded width."""
    entry = parse(line)
    text = line.strip()
    if entry is not None:
        said = entry.get("event") or entry.get("message") or text
        problem = str(entry.get("exception") or entry.get("error") or "").strip().splitlines()
        text = f"{said}: {problem[-1]}" if problem else str(said)
    return text if len(text) <= _LINE_WIDTH else text[: _LINE_WIDTH - 3] + "..."
