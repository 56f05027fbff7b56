"""The servers that the benchmark compares; each answers `GET /v1/items/{item_id}` alike.

`python targets.py NAME` binds a free port, prints it on standard error and serves until SIGTERM:
one uvicorn process (uvloop, httptools), the same handler, the same model.
"""

import argparse
import json
import logging
import os
import socket
import sys
import time
from decimal import Decimal

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.requests import Request


class Price(BaseModel):
    """Money as the services send it."""

    amount: str
    currency: str


class Item(BaseModel):
    """What the route answers."""

    item_id: str
    name: str
    description: str
    price: Price
    tags: list[str]


CATALOGUE = {
    str(number): Item(
        item_id=str(number),
        name=f"Item {number}",
        description="A thing that can be ordered, described at some length.",
        price=Price(amount=str(Decimal(number) / 4), currency="EUR"),
        tags=["new", "small"],
    )
    for number in range(1, 101)
}

router = APIRouter(prefix="/items")


@router.get("/{item_id}")
async def read_item(item_id: str) -> Item:
    """Return one item."""
    return CATALOGUE[item_id]


def bare() -> FastAPI:
    """FastAPI and nothing else; the route stands on the application itself."""
    app = FastAPI()
    app.get("/v1/items/{item_id}")(read_item)
    return app


def chassis() -> FastAPI:
    """The whole chassis: metrics, JSON access log, 10 % traces exported over OTLP."""
    from chassis import ApiVersion, ServiceSettings, create_app

    settings = ServiceSettings(
        service_name="bench",
        environment="production",
        otlp_endpoint=os.environ["BENCH_OTLP"],
        trace_sample_ratio=0.1,
    )
    return create_app(
        settings, title="Bench", description="Bench", versions=[ApiVersion("v1", router)]
    )


def unseen() -> FastAPI:
    """The chassis without the layer that measures, logs and traces.

    The layer also makes request ids and reads deadlines, so this shows an upper bound of its cost.
    """
    app = chassis()
    app.middleware_stack = app.build_middleware_stack()
    whole = app._entry

    async def without(scope, receive, send) -> None:
        await (whole._short if scope["type"] == "http" else whole)(scope, receive, send)

    app._entry = without
    return app


def typical() -> FastAPI:
    """What is usually bolted on: contrib OpenTelemetry at 100 %, instrumentator, a JSON log."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from prometheus_fastapi_instrumentator import Instrumentator
    from starlette.middleware.base import BaseHTTPMiddleware

    app = bare()
    log = logging.getLogger("typical")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stdout))

    async def log_request(request: Request, call_next):
        began = time.perf_counter()
        response = await call_next(request)
        log.info(
            json.dumps(
                {
                    "method": request.method,
                    "path": request.url.path,
                    "status": response.status_code,
                    "duration_ms": (time.perf_counter() - began) * 1000,
                }
            )
        )
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=log_request)
    Instrumentator().instrument(app).expose(app)
    provider = TracerProvider(resource=Resource.create({"service.name": "typical"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["BENCH_OTLP"] + "/v1/traces"))
    )
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


async def sink(scope, receive, send) -> None:
    """Take OTLP posts and forget them, as a collector that never pushes back."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


TARGETS = {
    "bare": bare,
    "unseen": unseen,
    "chassis": chassis,
    "typical": typical,
    "sink": lambda: sink,
}


def main() -> None:
    """Serve one target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=TARGETS)
    name = parser.parse_args().name
    app = TARGETS[name]()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    if name in {"chassis", "unseen"}:
        from chassis.server import run

        run(app, app.state.runtime.settings, [listener])
        return
    import uvicorn

    config = uvicorn.Config(app, log_config=None, access_log=False, loop="uvloop", http="httptools")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
