"""The access log: one JSON line per request, built from prepared pieces.

A line costs a few string operations. Lines wait at most 10 ms for others and leave together, in one
write; the end of the lifespan and of the process write what is left. Only a process that is killed
outright (SIGKILL) can lose the lines of its last 10 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import time
import weakref
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote

from chassis.settings import ServiceSettings

WAIT_SECONDS = 0.01
"""How long a line may wait for others."""

MANY = 256
"""How many lines are written without waiting any longer."""

_MILLISECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class LineWriter:
    """Writes whole lines to a file descriptor (by default standard output), many at a time."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []
        weakref.finalize(self, _write, self._lines, descriptor)  # also at the process' end

    def write(self, line: str) -> None:
        """Queue `line` (with its line end); without a running loop it is written at once."""
        self._lines.append(line)
        waiting = len(self._lines)
        if waiting == 1:
            try:
                asyncio.get_running_loop().call_later(WAIT_SECONDS, self.flush)
            except RuntimeError:
                self.flush()
        elif waiting >= MANY:
            self.flush()

    def flush(self) -> None:
        """Write what is queued."""
        _write(self._lines, self._descriptor)


def _write(lines: list[str], descriptor: int | None) -> None:
    if not lines:
        return
    view = memoryview("".join(lines).encode("utf-8", "backslashreplace"))
    lines.clear()
    try:
        if descriptor is None:
            descriptor = sys.stdout.fileno()
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                select.select([], [descriptor], [], 1.0)
    except (OSError, ValueError, AttributeError):
        return  # nobody reads any more


class AccessLog:
    """Formats access lines of one service."""

    def __init__(self, settings: ServiceSettings, write: Callable[[str], None]) -> None:
        self._write = write
        self._json = settings.log_format == "json"
        self._end = (
            f'","level":"info","logger":"chassis.access","event":"request",'
            f'"service":{json.dumps(settings.service_name)},'
            f'"version":{json.dumps(settings.version)}}}\n'
        )
        self._second = -1
        self._begin = ""
        self._middles: dict[tuple[str, str, int], str] = {}

    def __call__(  # noqa: PLR0917  (a call by names costs more)
        self,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        trace_id: str,
        span_id: str | None,
    ) -> None:
        """Write the line of one request. `method` and `route` are bounded labels."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._begin = f'{{"timestamp":"{stamp}.' if self._json else f"{stamp}."
        millisecond = _MILLISECONDS[int((now - second) * 1000)]
        if not self._json:
            # The path is decoded: a line end in it must not make a line of its own.
            shown = path if path.isprintable() else ascii(path)
            self._write(
                f"{self._begin}{millisecond} {method} {shown} {status} {seconds * 1000:.1f}ms\n"
            )
            return
        middle = self._middles.get((method, route, status))
        if middle is None:
            middle = self._middles[method, route, status] = (
                f'","method":{quote(method)},"route":{quote(route)},"status":{status},"path":'
            )
        if span_id is not None:
            trace_id = f'{trace_id}","span_id":"{span_id}'
        self._write(
            "".join(
                (
                    self._begin,
                    millisecond,
                    middle,
                    quote(path),
                    ',"duration_ms":',
                    "%.3f" % (seconds * 1000),
                    ',"request_id":"',
                    request_id,
                    '","trace_id":"',
                    trace_id,
                    self._end,
                )
            )
        )
