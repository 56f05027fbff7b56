"""Imports the libraries once and forks a process for each service that is asked for.

`python -m scripts.local.forkserver FD` is started by `forks` and spoken to over that socket, a
message each: `{"argv", "env"}` with the log's descriptor, answered by `{"pid"}`; and when that
process has ended, `{"pid", "code"}`. The end of the socket ends it, and with it all its children.

A service spends most of its start importing the same libraries as all others. Only libraries are
imported here, never the code of the tree: a service that is restarted runs what stands there now.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from setproctitle import setproctitle

from scripts.local.procs import end_with_parent

MESSAGE_BYTES = 200_000  # Linux keeps the boundaries of messages of up to 208 KiB
LIBRARIES = (
    "aiohttp",
    "aiosqlite",
    "alembic.command",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "fastapi.openapi.utils",
    "httptools",
    "httpx2",
    "joserfc.jwt",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.trace.export",
    "prometheus_client.openmetrics.exposition",
    "psutil",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
    "structlog",
    "uvicorn.lifespan.on",
    "uvloop",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the socket closes; in a child: be the process that was asked for."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    channel = socket.socket(fileno=int(words[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the runner alone
    for library in LIBRARIES:
        # What is missing is imported by nobody, or the service says so itself.
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # no collection writes to pages that all children share
    request = _serve(channel)
    if request is not None:
        _become(*request)


def _serve(channel: socket.socket) -> tuple[dict[str, Any], int] | None:
    """Fork for each request. Returns in a child, with its request, and at the end: None."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    arrange = end_with_parent()
    with selectors.DefaultSelector() as selector, woken, waker, channel:
        for source in (channel, woken):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if channel in ready:
                message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
                if not message:
                    return None
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    if arrange is not None:
                        arrange()
                    return json.loads(message), descriptors[0]
                os.close(descriptors[0])
                channel.send(json.dumps({"pid": pid}).encode())
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                _tell_the_ended(channel)


def _tell_the_ended(channel: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            channel.send(json.dumps({"pid": pid, "code": code}).encode())


def _become(request: dict[str, Any], output: int) -> None:
    """Be `python -m MODULE ...`, as if it had been started with this environment."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    argv: list[str] = request["argv"]
    setproctitle(" ".join(argv))  # before the environment changes: it lies behind the title
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = argv[2:]
    runpy.run_module(argv[2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
