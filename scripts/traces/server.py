"""The process behind the view: `POST /v1/traces` takes OTLP, the rest shows what came.

    python -m scripts.traces.server --port 8198

It listens on the loopback address only, and answers only to names of it: what is in a trace is
for who sits at this machine. Nothing is written to disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from scripts.traces import page
from scripts.traces.spans import MAX_BYTES, BadExportError, Span, decode
from scripts.traces.store import TRACES, Store, Trace

# Envoy sends each 5 s, and loses what meets a connection that is just being closed.
_KEEP_ALIVE_SECONDS = 75
_PROTOBUF = "application/x-protobuf"
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class View:
    """The endpoints over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, request: Request) -> Response:
        """Take an export of spans."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != _PROTOBUF:
            return PlainTextResponse(f"send {_PROTOBUF}\n", 415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return PlainTextResponse(f"more than {MAX_BYTES} bytes\n", 413)
        try:
            self._store.add(decode(bytes(body), request.headers.get("content-encoding", "")))
        except BadExportError as error:
            return PlainTextResponse(f"{error}\n", 400)
        answer = ExportTraceServiceResponse().SerializeToString()
        return Response(answer, media_type=_PROTOBUF)

    async def listing(self, _: Request) -> Response:
        """Show the last traces."""
        return HTMLResponse(page.listing(self._store), headers=_POLICY)

    async def one(self, request: Request) -> Response:
        """Show one trace."""
        trace = self._store.get(request.path_params["id"])
        if trace is None:
            return PlainTextResponse("This trace is not here, or not any more.\n", 404)
        return HTMLResponse(page.one(trace), headers=_POLICY)

    async def summaries(self, _: Request) -> Response:
        """Return the last traces, for programs."""
        return JSONResponse([_summary(self._store, trace) for trace in self._store])

    async def spans(self, request: Request) -> Response:
        """Return one trace with its spans, for programs."""
        trace = self._store.get(request.path_params["id"])
        if trace is None:
            return JSONResponse({"error": "unknown trace"}, 404)
        ordered = sorted(trace.spans.values(), key=lambda span: span.start)
        spans = [_plain(each) for each in ordered]
        return JSONResponse({**_summary(self._store, trace), "spans": spans})


async def _ready(_: Request) -> Response:
    return PlainTextResponse("ok")


def create_app(store: Store) -> Starlette:
    """Return the application over `store`."""
    view = View(store)
    return Starlette(
        routes=[
            Route("/", view.listing),
            Route("/trace/{id}", view.one),
            Route("/api/traces", view.summaries),
            Route("/api/traces/{id}", view.spans),
            Route("/readyz", _ready),
            Route("/v1/traces", view.take, methods=["POST"]),
        ],
        middleware=[
            # A page of the web must not read it by a name that it points at this machine.
            Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])
        ],
    )


def _summary(store: Store, trace: Trace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "title": page.title(trace),
        "services": trace.services,
        "start": trace.start,
        "milliseconds": trace.milliseconds,
        "count": len(trace.spans),
        "errors": trace.errors,
        "settled": store.settled(trace),
    }


def _plain(span: Span) -> dict[str, Any]:
    return {name: getattr(span, name) for name in Span.__slots__}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m scripts.traces.server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keep", type=int, default=TRACES, help="how many traces are kept")
    args = parser.parse_args(arguments)
    app = create_app(Store(args.keep))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=args.port,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
