"""Generated files: write them, or say which are not what the generator makes of the tree today."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def stale(folder: Path, pattern: str, wanted: Mapping[str, str]) -> list[str]:
    """Return one line for each file of `folder` that is missing, outdated or left over."""
    found = {file.name: file.read_text() for file in folder.glob(pattern)}
    lines = [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"{name}: nothing makes it any more" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    return lines + [f"{name}: outdated" for name in both if found[name] != wanted[name]]


def write(folder: Path, pattern: str, wanted: Mapping[str, str]) -> None:
    """Make the files of `folder` exactly those that are wanted."""
    for file in folder.glob(pattern):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def main(
    module: str,
    folder: Path,
    pattern: str,
    make: Callable[[], Mapping[str, str]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run `--write` or `--check` for a generator.

    Returns: 0, or 1 when `--check` found a file that is not current.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true", help="write the files")
    choice.add_argument("--check", action="store_true", help="say whether they are current")
    wanted = make()
    if parser.parse_args(arguments).write:
        write(folder, pattern, wanted)
        sys.stdout.write(f"wrote {len(wanted)} files to {folder}\n")
        return 0
    problems = stale(folder, pattern, wanted)
    for line in problems:
        sys.stdout.write(f"{folder}/{line}; run: python -m {module} --write\n")
    return 1 if problems else 0
