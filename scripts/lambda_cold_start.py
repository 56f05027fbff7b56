"""Measures the cold start of a function: `python -m scripts.lambda_cold_start FILE.zip`.

Each start is a fresh process that sees the unzipped zip and nothing else, as on Lambda. Rounds
are interleaved, so that a busy minute of the machine hits every variant alike:

    python      an empty interpreter: the floor, which the others include
    zip         import and lifespan, with the zip's bytecode
    sources     the same without bytecode, as an unprepared zip would start

CPU time is what a smaller or larger function divides or multiplies; wall time includes the load
of this machine. The settings are those of the environment (ITEMS_DATABASE_URL, ...).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.lambda_zip import PYTHONS, ZipError, find_python

_MEASURE = """
import json, sys, time
{work}
print(json.dumps([time.monotonic(), time.process_time(), len(sys.modules)]))
"""
VARIANTS = {"python": "", "zip": "import lambda_function", "sources": "import lambda_function"}


def bytecode_version(file: Path) -> str:
    """Return the Python that the zip's bytecode is for.

    Raises:
        ZipError: it has none, or is no zip of ours.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            names = packed.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ZipError(f"{file}: {error}; build it: make lambda SERVICE=items") from None
    for version in PYTHONS:
        tag = f"cpython-{version.replace('.', '')}.pyc"
        if f"__pycache__/lambda_function.{tag}" in names:
            return version
    raise ZipError(f"{file}: has no bytecode of a handler; build it: make lambda SERVICE=items")


def start(interpreter: str, task: Path, work: str) -> tuple[float, float, int]:
    """Start once; return wall seconds, CPU seconds and the number of modules.

    Both times begin with the process: its clock is that of this machine, the same as here.

    Raises:
        ZipError: the function does not start.
    """
    environment = {**os.environ, "PYTHONPATH": str(task), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    done = subprocess.run(
        [interpreter, "-S", "-s", "-c", _MEASURE.format(work=work)],
        cwd=task.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ZipError(f"the function does not start: {done.stderr.strip().splitlines()[-1]}")
    ended, cpu, modules = json.loads(done.stdout.splitlines()[-1])
    return ended - began, cpu, modules


def measure(file: Path, rounds: int) -> Mapping[str, list[tuple[float, float, int]]]:
    """Start every variant once in each round, after one that warms the page cache.

    Raises:
        ZipError: there is no interpreter for the zip, or the function does not start.
    """
    interpreter = find_python(bytecode_version(file))
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        tasks = {name: Path(folder, name, "task") for name in VARIANTS}
        for task in tasks.values():
            with zipfile.ZipFile(file) as packed:
                packed.extractall(task)
        for cache in tasks["sources"].rglob("__pycache__"):
            shutil.rmtree(cache)
        for number in range(rounds + 1):
            for name, work in VARIANTS.items():
                seen = start(interpreter, tasks[name], work)
                if number:
                    found[name].append(seen)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table. Returns 2 for what the user can mend, else 0."""
    parser = argparse.ArgumentParser(prog="lambda_cold_start")
    parser.add_argument("zip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        found = measure(options.zip, options.rounds)
    except ZipError as error:
        print(f"lambda_cold_start: {error}", file=sys.stderr)
        return 2
    print(f"{'':10} {'wall ms':>20} {'CPU ms':>20} {'modules':>8}   median (least to most)")
    for name, seen in found.items():
        columns = []
        for index in (0, 1):
            values = sorted(each[index] * 1000 for each in seen)
            columns.append(f"{statistics.median(values):.0f} ({values[0]:.0f}-{values[-1]:.0f})")
        print(f"{name:10} {columns[0]:>20} {columns[1]:>20} {seen[0][2]:8}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
