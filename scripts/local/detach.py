"""`up` in the background: a second process runs the platform, this one shows its start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TextIO

from scripts.local.home import Home, read_json
from scripts.local.lock import STOP_SECONDS
from scripts.local.logfile import open_log, start_new

_POLL_SECONDS = 0.05


def start_in_background(home: Home) -> int:
    """Start this very command again without a terminal and return when the platform is ready.

    Returns:
        The exit code: 0 when it runs, that of the background process when it gave up.
    """
    home.make()
    log = home.log("runner")
    start_new(log)
    output = open_log(log)
    try:
        child = subprocess.Popen(
            _command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    with log.open() as said:
        try:
            while child.poll() is None and not _ready(home, child.pid):
                _show(said)
                time.sleep(_POLL_SECONDS)
        except BaseException:  # Ctrl-C, or a closed pipe: nobody waits for it any more
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
            raise
        _show(said)
    return child.returncode or 0


def _command() -> list[str]:
    arguments = ["--background" if word == "--detach" else word for word in sys.orig_argv[1:]]
    return [sys.executable, *arguments]


def _ready(home: Home, pid: int) -> bool:
    status = read_json(home.status)
    return isinstance(status, dict) and status.get("pid") == pid and status["phase"] == "ready"


def _show(said: TextIO) -> None:
    sys.stdout.write(said.read())
    sys.stdout.flush()
