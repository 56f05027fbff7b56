"""The stream service: live events over WebSockets and server-sent events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SpanExporter

import chassis
from chassis import ApiVersion, Clock, Runtime, load_settings
from stream import asyncapi
from stream.api import router
from stream.ingest import sink
from stream.service import Streams, streams_of
from stream.settings import Settings
from stream.sockets import router as sockets

_DESCRIPTION = """
What happens, as it happens: the orders and notifications of the caller and the readings of sensors,
over a WebSocket (`/v1/stream`, described in `/asyncapi.json`) or server-sent events (`/v1/events`).
A client that was away names its last event and gets what it missed.
"""


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    streams = Streams(runtime)
    try:
        yield
    finally:
        await streams.log.close()


async def _read_log(runtime: Runtime) -> None:
    await streams_of(runtime).log.run()


async def _keep(runtime: Runtime) -> None:
    await streams_of(runtime).connections.keep()


async def _drain(runtime: Runtime) -> None:
    await streams_of(runtime).connections.drain()


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    span_exporter: SpanExporter | None = None,
) -> FastAPI:
    """Return the application; the settings come from the environment unless given."""
    return chassis.create_app(
        settings or load_settings(Settings),
        title="Stream",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        routers=[sink, sockets, asyncapi.router],
        workers={"log": _read_log, "streams": _keep, "streams-drain": _drain},
        setup=_setup,
        clock=clock,
        span_exporter=span_exporter,
    )
