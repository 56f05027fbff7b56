"""The access log: one JSON line per request, built from prepared pieces.

A line costs a few string operations. Lines made in one turn of the event loop leave in one write
at its end, so nothing waits longer than the current turn and nothing is left behind at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote

from chassis.settings import ServiceSettings

_MILLISECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class LineWriter:
    """Writes whole lines to a file descriptor, one write per turn of the event loop."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        """Queue `line` (with its line end); without a running loop it is written at once."""
        self._lines.append(line)
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what is queued."""
        if not self._lines:
            return
        data = "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        descriptor = self._descriptor
        if descriptor is None:
            try:
                descriptor = sys.stdout.fileno()
            except (OSError, ValueError, AttributeError):
                return
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                select.select([], [descriptor], [], 1.0)
            except OSError:
                return


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
