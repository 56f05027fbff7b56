"""Follow the logs of the local platform: `python -m scripts.logs [SERVICE] [--pretty]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from scripts.local.home import Home
from scripts.local.logfile import parse, tail

_EXTRA = ("gateway", "prepare", "runner")
_POLL_SECONDS = 0.2
_TAIL_LINES = 20
_HEAD_FIELDS = {
    "timestamp",
    "level",
    "event",
    "service",
    "version",
    "logger",
    "exception",
    "color_message",
}
_COLOURS = {"error": "31", "critical": "31", "warning": "33", "debug": "2"}


class Follower:
    """Reads one log as it grows, through rotations and new files of the same name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._rest = ""

    def last(self, lines: int) -> list[str]:
        """The last complete lines; `read` goes on after them."""
        found, _ = tail(self.path)
        if self._open():
            assert self._file is not None
            self._file.seek(0, os.SEEK_END)
        return found[-lines:]

    def read(self) -> list[str]:
        """The complete lines that were written since the last call."""
        lines = self._drain()
        if self._replaced() and self._open():
            lines += self._drain()
        return lines

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _drain(self) -> list[str]:
        if self._file is None:
            return []
        text = self._rest + self._file.read()
        *lines, self._rest = text.split("\n")
        return lines

    def _open(self) -> bool:
        self.close()
        self._rest = ""
        try:
            self._file = self.path.open(errors="replace")
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        """Whether the name now means another file, or this one was emptied."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        mine = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino) or (
            mine.st_size < self._file.tell()
        )


def pretty(line: str, *, colour: bool) -> str:
    """A JSON log line as `time level event field=value ...`; any other line as it is."""
    entry = parse(line)
    if entry is None:
        return line
    clock = str(entry.get("timestamp", "")).partition("T")[2].rstrip("Z")[:12]
    level = str(entry.get("level", ""))
    fields = " ".join(
        f"{key}={value}" for key, value in entry.items() if key not in _HEAD_FIELDS and value != ""
    )
    text = f"{clock:<12} {level:<8} {entry.get('event', '')}  {fields}".rstrip()
    if entry.get("exception"):
        text += f"\n{entry['exception']}"
    code = _COLOURS.get(level.lower())
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def follow(followers: dict[str, Follower], *, once: bool) -> Iterator[tuple[str, str]]:
    """Yield (service, line): the last lines of each log, then what comes, without an end."""
    for name, follower in followers.items():
        for line in follower.last(_TAIL_LINES):
            yield name, line
    while not once:
        for name, follower in followers.items():
            for line in follower.read():
                yield name, line
        sys.stdout.flush()
        time.sleep(_POLL_SECONDS)


def known(home: Home) -> list[str]:
    """Everything that has a log: the services, the gateway, the runner itself."""
    services = sorted(path.parent.name for path in Path("services").glob("*/service.yaml"))
    return [*services, *_EXTRA, *sorted(_logs_there(home) - {*services, *_EXTRA})]


def _logs_there(home: Home) -> set[str]:
    return {path.stem for path in home.logs.glob("*.log")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it until Ctrl-C. Exit code 2 for an unknown service."""
    parser = argparse.ArgumentParser(prog="python -m scripts.logs", description=__doc__)
    parser.add_argument("service", nargs="?", help="one service; all of them if left out")
    parser.add_argument("--pretty", action="store_true", help="make JSON readable")
    parser.add_argument("--no-follow", action="store_true", help="print the last lines and end")
    args = parser.parse_args(arguments)
    home = Home.from_environment()
    names = known(home)
    if args.service is not None and args.service not in names:
        print(f"logs: {args.service}: no such service; known: {', '.join(names)}", file=sys.stderr)
        return 2
    chosen = names if args.service is None else [args.service]
    followers = {name: Follower(home.log(name)) for name in chosen}
    width = max(map(len, names))
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        for name, line in follow(followers, once=args.no_follow):
            text = pretty(line, colour=colour) if args.pretty else line
            print(text if args.service else f"{name:<{width}} | {text}")
        sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever read us is gone (`make logs | head`); say nothing when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for follower in followers.values():
            follower.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
