"""What Prometheus scrapes: the processes of the running platform, from the runner's status.json."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.local.home import Home, read_json, write_json
from scripts.local.lock import held

NAMESPACE = "local"
_LOOK_SECONDS = 1.0


def targets(status: Any) -> list[dict[str, Any]]:
    """Return the targets of a status in the format of `file_sd_configs`.

    Each is labelled as in a cluster: `job` is the service, `namespace` is `local`. A process that
    was stopped or died stays a target: that it does not answer is what Prometheus shall see.
    """
    if not isinstance(status, dict):
        return []
    return [
        {
            "targets": [urlsplit(process["metrics"]).netloc],
            "labels": {
                "job": process["name"],
                "namespace": NAMESPACE,
                "__metrics_path__": urlsplit(process["metrics"]).path,
            },
        }
        for process in status.get("processes", ())
        if process.get("metrics")
    ]


def trace_view(status: Any) -> str | None:
    """Return the address of the trace view, if the platform runs it."""
    found = status.get("processes", ()) if isinstance(status, dict) else ()
    return next((process["url"] for process in found if process["name"] == "traces"), None)


def running(home: Home) -> Any:
    """Return the status of the platform that runs in `home`, or None."""
    return read_json(home.status) if held(home) else None


async def follow(home: Home, file: Path) -> None:
    """Keep `file` as the platform is, until cancelled: it may stop, and come back elsewhere."""
    last: list[dict[str, Any]] | None = None
    while True:
        now = targets(running(home))
        if now != last:
            write_json(file, now)
            last = now
        await asyncio.sleep(_LOOK_SECONDS)
