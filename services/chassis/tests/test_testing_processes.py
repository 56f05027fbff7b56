"""Children of a test run end with it, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    """SIGKILL leaves the parent no time to end anybody; the kernel does."""
    script = textwrap.dedent("""
        import subprocess, sys, time
        from chassis.testing.processes import end_with_parent
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=end_with_parent()
        )
        print(child.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert _runs(child)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            deadline = time.monotonic() + 30
            while _runs(child) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not _runs(child)
        finally:
            parent.kill()
            if _runs(child):
                os.kill(child, signal.SIGKILL)
