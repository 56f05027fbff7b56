"""PID 1 of a dev image: runs the service from a copy in /tmp and restarts it when a file changes.

`python reload.py serve` copies /app to /tmp/app, the one place that a pod may write, runs
`python /tmp/app serve`, and restarts that when a `.py` file below /tmp/app changes; skaffold's file
sync writes there. A service that ends by itself (a syntax error, say) waits for the next change.
SIGTERM ends the service, then this. It needs nothing but Python: it stands alone in the image.

The next process waits already, with the libraries imported: they are most of the time of a start.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

SOURCE = Path("/app")
COPY = Path("/tmp/app")  # noqa: S108  (the writable volume of every pod)
POLL_SECONDS = 0.1
STANDBY_SECONDS = 3.0
"""After a start, until the next process is made: the start needs the processor."""

END_SECONDS = 0.2
"""How long the old process may drain after a change: a developer waits for it."""

LIBRARIES = (
    "aiohttp",
    "alembic.command",
    "fastapi",
    "httpx2",
    "joserfc.jwt",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.trace",
    "prometheus_client.openmetrics.exposition",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.ext.asyncio",
    "structlog",
    "uvicorn",
    "uvloop",
)
"""What a service imports that is not in the copy; one that is not there does not matter."""

# Ends at once when the other end of the pipe is closed without a word.
_PROCESS = """
import contextlib, importlib, runpy, sys
for name in sys.argv.pop(1).split():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
if sys.stdin.readline():
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def copy(source: Path, target: Path) -> None:
    """Copy the sources, once: what was synced into a container survives its restart.

    Bytecode stays behind: that of the image is never checked against its source. The copy gets its
    own, checked by content, so that a restart compiles what changed and nothing else.
    """
    if not target.exists():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(
            target, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )


def state(root: Path) -> dict[str, tuple[int, int]]:
    """Return the time of change (ns) and the size (bytes) of every Python file below `root`."""
    found: dict[str, tuple[int, int]] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)  # noqa: PTH118  (five times a second)
                try:
                    info = os.stat(path)  # noqa: PTH116
                except FileNotFoundError:
                    continue
                found[path] = (info.st_mtime_ns, info.st_size)
    return found


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Return the files that are new, gone or different, in order."""
    return sorted(path for path in before | after if before.get(path) != after.get(path))


class Reloader:
    """Keeps `python COMMAND` running, until `stop`."""

    def __init__(self, command: list[str], root: Path) -> None:
        self._command = command
        self._root = root
        self._child: subprocess.Popen[str] | None = None
        self._next: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on; the child drains as it would alone. Runs in a signal handler."""
        del number, frame
        self._stopping = True
        if self._child is not None:
            self._child.terminate()

    def run(self) -> int:
        """Run until a signal; return the child's exit code then."""
        seen = state(self._root)
        self._start()
        while not self._stopping:
            time.sleep(POLL_SECONDS)
            now = state(self._root)
            if files := changed(seen, now):
                seen = now
                shown = ", ".join(os.path.relpath(file, self._root) for file in files)
                print(f"reload: {shown}", file=sys.stderr, flush=True)
                self._end()
                if not self._stopping:
                    self._start()
            elif self._child is not None and self._child.poll() is not None and not self._stopping:
                code, self._child = self._child.returncode, None
                said = f"reload: the service ended with {code}; waiting for a change"
                print(said, file=sys.stderr, flush=True)
            elif self._next is None and time.monotonic() - self._started > STANDBY_SECONDS:
                self._next = self._prepare(LIBRARIES)
        if self._next is not None and self._next.stdin is not None:
            self._next.stdin.close()
            self._next.wait()
        return self._child.wait() if self._child is not None else 0

    def _start(self) -> None:
        """Send the waiting process off, or a new one."""
        self._child, self._next = self._next or self._prepare(()), None
        self._started = time.monotonic()
        stdin = self._child.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended; `run` will say so
                stdin.write("go\n")
                stdin.close()
        if self._stopping:  # the signal came meanwhile
            self._child.terminate()

    def _prepare(self, libraries: tuple[str, ...]) -> subprocess.Popen[str]:
        # Python's own bytecode is checked by second and size: it would miss a quick small change.
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        line = [sys.executable, "-c", _PROCESS, " ".join(libraries), *self._command]
        return subprocess.Popen(line, cwd=self._root, env=environ, stdin=subprocess.PIPE, text=True)

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def main() -> int:
    """Copy, run, reload; return the exit code of the service."""
    copy(SOURCE, COPY)
    reloader = Reloader([str(COPY), *sys.argv[1:]], COPY)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, reloader.stop)
    return reloader.run()


if __name__ == "__main__":
    sys.exit(main())
