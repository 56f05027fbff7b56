"""Stop one process of a running platform and start it again: an outage on purpose."""

from __future__ import annotations

import signal
from typing import Any

from scripts.local.home import Home, RunnerError, read_json
from scripts.local.lock import held
from scripts.local.procs import Identity, kill_group, wait_until

_TERM_SECONDS = 15.0
_KILL_SECONDS = 5.0


def hold_down(home: Home, name: str) -> None:
    """End the process (SIGTERM, later SIGKILL) and keep it from being started again.

    Raises:
        RunnerError: nothing runs, there is no such process, or it does not end.
    """
    _find(home, name)
    home.hold(name).touch(mode=0o600)
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        children = read_json(home.children)
        child = children.get(name) if isinstance(children, dict) else None
        if child is not None:
            kill_group(Identity(int(child["pid"]), str(child["start"])), number)
        if wait_until(lambda: _find(home, name)["state"] == "held", seconds):
            return
    raise RunnerError(f"{name} does not end; see {home.log(name)}")


def let_go(home: Home, name: str, seconds: float) -> None:
    """Let the process start again and wait until it is ready.

    Raises:
        RunnerError: nothing runs, there is no such process, or it is not ready in time.
    """
    _find(home, name)
    home.hold(name).unlink(missing_ok=True)
    if not wait_until(lambda: _find(home, name)["state"] == "ready", seconds):
        raise RunnerError(f"{name} is not ready after {seconds:g} s; see {home.log(name)}")


def _find(home: Home, name: str) -> dict[str, Any]:
    status = read_json(home.status)
    if not held(home) or not isinstance(status, dict):
        raise RunnerError("Slipway does not run; start it with `make up`")
    known = {process["name"]: process for process in status["processes"]}
    if name not in known:
        raise RunnerError(f"{name}: no such process; known: {', '.join(known)}", code=2)
    return dict(known[name])
