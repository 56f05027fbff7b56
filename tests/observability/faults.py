"""Faults that last as long as a block: a process that stumbles, a held database, a crowd."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2


@contextmanager
def _beside(count: int, turn: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run `turn` again and again in threads; a turn waits on the event, and ends with it."""
    end = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not end.is_set():
                turn(end)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures


@contextmanager
def stumbling(pid: int, *, stopped: float, running: float) -> Iterator[None]:
    """Stop a process for moments, as a host without CPU or a long collection of garbage does."""

    def turn(end: threading.Event) -> None:
        os.kill(pid, signal.SIGSTOP)
        end.wait(stopped)
        os.kill(pid, signal.SIGCONT)
        end.wait(running)

    try:
        with _beside(1, turn):
            yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def held(database: Path, *, seconds: float, free: float) -> Iterator[None]:
    """Hold the write lock of an SQLite database most of the time, as a long migration does."""

    def turn(end: threading.Event) -> None:
        with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            end.wait(seconds)
            connection.execute("ROLLBACK")
        end.wait(free)

    with _beside(1, turn):
        yield


@contextmanager
def without_table(database: Path, table: str) -> Iterator[None]:
    """Take a table away, as a migration does that is not meant for the code that runs."""

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(table, f"{table}_away")
    try:
        yield
    finally:
        rename(f"{table}_away", table)


@contextmanager
def crowd(count: int, ask: Callable[[], httpx2.Response], pause: float = 0) -> Iterator[None]:
    """Let so many clients ask again and again; whatever is answered, something must be."""

    def turn(end: threading.Event) -> None:
        ask()
        end.wait(pause)

    with _beside(count, turn):
        yield
