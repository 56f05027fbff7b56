"""Processes that a test starts: none of them outlives the test run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn`: the child gets SIGTERM when the test run dies, even by SIGKILL.

    Linux only (prctl PR_SET_PDEATHSIG): elsewhere it is None, and a killed run leaves its children.
    Start the child from the main thread: the kernel takes the end of the starting thread for the
    parent's death.
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
