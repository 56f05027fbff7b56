"""Processes by identity: a pid alone may belong to somebody else by the time it is signalled."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02


def start_mark(pid: int) -> str | None:
    """When the process started, as a string to compare; None if there is none or it is a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            # The command (field 2) may hold spaces and parentheses: count from the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return None if not answer or answer.startswith("Z") else answer.partition(" ")[2].strip()


@dataclass(frozen=True)
class Identity:
    """One process, for ever: its pid and when it started."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a running process."""
        start = start_mark(pid)
        return None if start is None else cls(pid, start)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_mark(self.pid) == self.start

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def group_alive(leader: Identity) -> bool:
    """Whether anybody is left in the process group that `leader` founded.

    A pid is not given out again while a group carries it, so a group whose leader is gone is still
    the one that we made; a leader with another start time is somebody else.
    """
    current = start_mark(leader.pid)
    if current is not None:
        return current == leader.start
    return _has_running_member(leader.pid)


def _has_running_member(group: int) -> bool:
    """Whether the group holds a process that is no zombie (killpg alone would count those)."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not Path("/proc/self/stat").exists():
        return True
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[2] == str(group) and fields[0] not in "ZX":
                    return True
    return False


def kill_group(leader: Identity, number: signal.Signals) -> None:
    """Signal every process of the group that `leader` founded, if it is still that group."""
    if group_alive(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, number)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition` holds or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def end_with_parent() -> Callable[[], None] | None:
    """A function for the child to call before exec: SIGTERM when the runner dies, even by SIGKILL.

    Linux only (prctl PR_SET_PDEATHSIG); elsewhere the next `up` or `down` ends what was left.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child may not load libraries
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died between the fork and this line
            os._exit(1)

    return arrange


def age(seconds: float) -> str:
    """`42 s`, `3 min`, `5 h 07 min`."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
