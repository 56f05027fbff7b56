"""Processes of Python modules from a fork server, which spares each the import of the libraries.

Linux only: elsewhere libraries of the system do not survive a fork without exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

from scripts.local.forkserver import MESSAGE_BYTES
from scripts.local.procs import end_with_parent


class ForkError(OSError):
    """The fork server cannot start a process; the text says why."""


class Fork:
    """One process of the fork server, like `asyncio.subprocess.Process` as far as it goes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait for the end; return the exit code, or minus the signal that ended it."""
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM unless the end is known."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def end(self, code: int) -> None:
        """Take note of the end."""
        self.returncode = code
        self.ended.set()


class Forks:
    """A fork server, started by `warm` or at the first use, and again after it died.

    Closing it ends it and all its processes.
    """

    def __init__(self) -> None:
        self._server: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._asked: deque[asyncio.Future[Fork]] = deque()
        self._running: dict[int, Fork] = {}

    @property
    def usable(self) -> bool:
        """Whether this system lets a process with libraries fork and go on."""
        return sys.platform == "linux"

    async def __aenter__(self) -> Self:
        """Do nothing yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the server and wait for it."""
        self._disconnect()
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                self._server.kill()
            await self._server.wait()

    async def warm(self) -> None:
        """Begin to import the libraries, where forks are usable."""
        if self.usable:
            await self._connected()

    async def spawn(self, argv: Sequence[str], env: Mapping[str, str], output: int) -> Fork:
        """Start `argv` (`python -m MODULE ...`) in a session of its own, writing to `output`.

        Raises:
            ForkError: the server died, or the environment is too large to be sent.
        """
        message = json.dumps({"argv": list(argv), "env": dict(env)}).encode()
        if len(message) > MESSAGE_BYTES:
            raise ForkError(f"the environment is larger than {MESSAGE_BYTES} bytes")
        channel = await self._connected()
        asked: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        try:
            socket.send_fds(channel, [message], [output])
        except OSError as error:
            self._asked.remove(asked)
            raise ForkError(f"the fork server does not listen: {error}") from None
        return await asked

    async def _connected(self) -> socket.socket:
        if self._channel is not None:
            return self._channel
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "scripts.local.forkserver",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours, self._hear)
        return ours

    def _hear(self) -> None:
        assert self._channel is not None
        message = b""
        with contextlib.suppress(ConnectionError):
            message = self._channel.recv(MESSAGE_BYTES)
        if not message:
            self._disconnect()
            return
        said: dict[str, Any] = json.loads(message)
        if "code" in said:
            self._running.pop(said["pid"]).end(said["code"])
        else:
            fork = self._running[said["pid"]] = Fork(said["pid"])
            asked = self._asked.popleft()
            if not asked.cancelled():
                asked.set_result(fork)

    def _disconnect(self) -> None:
        """The server is gone, and its children with it (see `end_with_parent`)."""
        if self._channel is None:
            return
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()
        self._channel = None
        while self._asked:
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_exception(ForkError("the fork server died"))
        for fork in self._running.values():
            fork.end(-signal.SIGTERM)
        self._running.clear()
