"""The endpoints for the platform: `/livez`, `/readyz`, `/startupz` and `/metrics`.

`/livez` says that the event loop turns, nothing else. `/readyz` looks at local state only: a
readiness that asked a database would take every pod out at once. `/startupz` is 200 once warm.
They stand outside of metrics, traces, access log and the OpenAPI document.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from chassis.metrics import exposition
from chassis.problems import Problem
from chassis.runtime import Runtime

PATHS = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})


def add_probes(app: FastAPI, runtime: Runtime) -> None:
    """Add the probes and `/metrics` to `app`."""
    lifecycle = runtime.lifecycle

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        if lifecycle.obstacle is not None:
            raise Problem(503, "Not ready", detail=lifecycle.obstacle)
        return PlainTextResponse("ok")

    async def startupz(_: Request) -> Response:
        if not lifecycle.warm:
            raise Problem(503, "Not started", detail=lifecycle.waiting or "starting")
        return PlainTextResponse("ok")

    async def metrics(request: Request) -> Response:
        body, content_type = exposition(runtime.registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    for path, endpoint in (
        ("/livez", livez),
        ("/readyz", readyz),
        ("/startupz", startupz),
        ("/metrics", metrics),
    ):
        app.add_route(path, endpoint, include_in_schema=False)
