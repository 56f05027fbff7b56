"""`create_app`: a FastAPI application with everything that a service of the platform owes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from fastapi import APIRouter, FastAPI
from opentelemetry.sdk.trace.export import SpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import openapi
from chassis.access_log import AccessLog, LineWriter
from chassis.clock import Clock, SystemClock
from chassis.http.errors import install_peer_error_handlers
from chassis.metrics import LagSampler, RequestMetrics, build_info
from chassis.middleware import RequestMiddleware
from chassis.probes import PATHS, add_probes
from chassis.body_limit import BodyLimit
from chassis.problems import UnhandledMiddleware, install_problem_handlers
from chassis.routes import RouteLabels, include_flat
from chassis.runtime import Runtime
from chassis.settings import ServiceSettings
from chassis.telemetry import Sampling, build_provider
from chassis.versions import ApiVersion, VersionTable
from chassis.workers import Supervisor, Worker

Setup = Callable[[Runtime], AbstractAsyncContextManager[None]]
EventHandler = Callable[..., Any]


class ServiceApp(FastAPI):
    """FastAPI inside the request middleware, so that nothing of a request escapes it."""

    entry: RequestMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self.entry is None:
            await super().__call__(scope, receive, send)
        else:
            await self.entry(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's stack with the chassis' own outer end: problems instead of a re-raise.

        The body limit is applied once, here, and only where there is a body; FastAPI's own
        `max_body_size` on the application would wrap it three times around each request. A
        route's own `max_body_size` still overrides it.
        """
        stack: Any = super().build_middleware_stack()
        inner = stack.app if isinstance(stack, ServerErrorMiddleware) else stack
        return UnhandledMiddleware(BodyLimit(inner, self.state.runtime.settings.max_body_bytes))

    async def serve_inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what the request middleware passes on."""
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with problems as the error answers."""
        if not self.openapi_schema:
            self.openapi_schema = openapi.customise(self, super().openapi)
        return self.openapi_schema


def create_app(
    settings: ServiceSettings,
    *,
    title: str,
    description: str,
    routers: Sequence[APIRouter] = (),
    versions: Sequence[ApiVersion] = (),
    outbox: bool = False,
    inbox: bool = False,
    idempotency: bool = False,
    consumers: Mapping[str, EventHandler] | None = None,
    workers: Mapping[str, Worker] | None = None,
    setup: Setup | None = None,
    clock: Clock | None = None,
    span_exporter: SpanExporter | None = None,
) -> FastAPI:
    """Return the application of a service. Nothing is opened before its lifespan."""
    registry = CollectorRegistry()
    runtime = Runtime(
        settings,
        clock=clock or SystemClock(),
        registry=registry,
        tracer_provider=build_provider(settings, span_exporter),
    )
    all_workers = dict(workers or {})
    lag = LagSampler(registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close, runtime)
            if setup is not None:
                await stack.enter_async_context(setup(runtime))
            loops = {"event-loop-lag": lambda _: lag.run(), **all_workers}
            await stack.enter_async_context(Supervisor(runtime, loops).running())
            runtime.lifecycle.started = True
            runtime.lifecycle.waiting = None
            yield

    app = ServiceApp(
        title=title,
        description=description,
        version=settings.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        telemetry={
            "tracer_provider": runtime.tracer_provider,
            "tracing": runtime.tracer_provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.runtime = runtime
    install_problem_handlers(app)
    install_peer_error_handlers(app)
    for version in versions:
        include_flat(app, version.router, prefix=f"/{version.name}")
    for router in routers:
        include_flat(app, router)
    if consumers or inbox:
        from chassis.events.consumer import consumer_router

        include_flat(app, consumer_router(consumers or {}))
    if outbox:
        from chassis.events.relay import Relay

        all_workers["outbox-relay"] = lambda rt: Relay(rt).run()
    if settings.docs_enabled:
        app.openapi_url, app.docs_url, app.redoc_url = "/openapi.json", "/docs", "/redoc"
        app.setup()
    add_probes(app, runtime)

    build_info(registry, settings)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    unversioned = {route.path.split("/")[1] for route in app.routes if hasattr(route, "path")}
    unversioned -= {version.name for version in versions}
    app.entry = RequestMiddleware(
        app.serve_inner,
        metrics=RequestMetrics(registry),
        labels=RouteLabels(app),
        lifecycle=runtime.lifecycle,
        access_log=AccessLog(settings, LineWriter().write) if settings.access_log else None,
        versions=VersionTable(versions, unversioned) if versions else None,
        sampling=Sampling(settings.trace_sample_ratio) if runtime.tracer_provider else None,
        quiet=PATHS,
        timeout=settings.request_timeout_seconds,
    )
    return app


async def _close(runtime: Runtime) -> None:
    runtime.lifecycle.started = False
    await runtime.close()
    if runtime.tracer_provider is not None:
        await anyio.to_thread.run_sync(runtime.tracer_provider.shutdown)
