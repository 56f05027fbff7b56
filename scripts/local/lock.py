"""One run at a time: a lock file that also says who holds it, and the list of what it started."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from scripts.local.home import Home, RunnerError, read_json, write_json
from scripts.local.procs import Identity, group_alive, kill_group, wait_until

STOP_SECONDS = 60.0  # the runner itself bounds its stop well below this
_END_SECONDS = 10.0


@contextmanager
def running(home: Home) -> Iterator[None]:
    """Hold the lock: this process is the one that runs the platform of `home`.

    The kernel drops the lock with the process, however it dies; the pid in the file is only for
    those who want to stop it.

    Raises:
        RunnerError: another process holds it.
    """
    home.make()
    with home.lock.open("a+") as file:
        # `held` locks for an instant to find out; that is no reason to give up.
        if not wait_until(lambda: _try_lock(file) or holder(home) is not None, 1) or not _try_lock(
            file
        ):
            who = holder(home)
            named = f" (pid {who.pid})" if who else ""
            raise RunnerError(
                f"Slipway already runs{named}; see `make status`, stop it with `make down`"
            )
        me = Identity.of(os.getpid())
        assert me is not None
        file.truncate(0)
        file.write(json.dumps({"pid": me.pid, "start": me.start}))
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def held(home: Home) -> bool:
    """Whether a process runs the platform of `home`."""
    try:
        with home.lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def holder(home: Home) -> Identity | None:
    """Who runs the platform; None when nobody does. A reused pid is never mistaken for it."""
    value = read_json(home.lock)
    if not isinstance(value, dict):
        return None
    who = Identity(int(value["pid"]), str(value["start"]))
    return who if who.alive() else None


def stop_running(home: Home) -> bool:
    """Stop the process that runs the platform and wait for its end. False when none did.

    Raises:
        RunnerError: somebody holds the lock but cannot be identified.
    """
    if not held(home):
        return False
    # Between taking the lock and writing its pid a starting runner has no name for a moment.
    if not wait_until(lambda: holder(home) is not None or not held(home), 2):
        raise RunnerError(f"{home.lock} is locked by an unknown process; end that one first")
    who = holder(home)
    if who is not None:
        who.signal(signal.SIGTERM)
        if not wait_until(lambda: not held(home), STOP_SECONDS):
            who.signal(signal.SIGKILL)
            wait_until(lambda: not held(home), _END_SECONDS)
    return True


def record_children(home: Home, children: dict[str, Identity]) -> None:
    """Write down who was started, before anything else can go wrong."""
    write_json(
        home.children,
        {name: {"pid": child.pid, "start": child.start} for name, child in children.items()},
    )


def end_leftovers(home: Home) -> list[str]:
    """End what an earlier run left behind and tell the names. Call it with no run going on."""
    value = read_json(home.children)
    if not isinstance(value, dict):
        return []
    left = {
        name: leader
        for name, child in value.items()
        if group_alive(leader := Identity(int(child["pid"]), str(child["start"])))
    }
    for leader in left.values():
        kill_group(leader, signal.SIGTERM)
    if not wait_until(lambda: not any(map(group_alive, left.values())), _END_SECONDS):
        for leader in left.values():
            kill_group(leader, signal.SIGKILL)
        wait_until(lambda: not any(map(group_alive, left.values())), _END_SECONDS)
    home.children.unlink(missing_ok=True)
    return sorted(left)
