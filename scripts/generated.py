"""A file that is derived from the tree: write it, or say whether it is current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.topology import Topology, TopologyError, load


def main(
    name: str,
    file: Path,
    make: Callable[[Topology], str],
    arguments: Sequence[str] | None,
    *,
    show: Callable[[Topology], str] | None = None,
    refusal: type[Exception] = TopologyError,
) -> int:
    """Run `--write` or `--check` for `file`, whose text is `make`'s; without a flag print `show`'s.

    Returns: 0; 1 when `--check` found the file stale; 2 for a tree that is wrong or a `refusal`,
        told in one line.
    """
    parser = argparse.ArgumentParser(prog=name)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help=f"write {file}")
    choice.add_argument("--check", action="store_true", help=f"is {file} current?")
    options = parser.parse_args(arguments)
    try:
        topology = load()
        text, target = make(topology), topology.root / file
        if options.write:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {file}")
        elif options.check:
            if not target.is_file() or target.read_text(encoding="utf-8") != text:
                print(f"{name}: {file} is stale; run --write", file=sys.stderr)
                return 1
        else:
            print(show(topology) if show else text, end="")
    except (TopologyError, refusal, OSError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
