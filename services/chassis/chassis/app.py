"""`create_app`: a FastAPI application with everything that a service of the platform owes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from fastapi import APIRouter, FastAPI
from opentelemetry.sdk.trace.export import SpanExporter
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import openapi
from chassis.access_log import AccessLog, LineWriter
from chassis.clock import Clock, SystemClock
from chassis.database import install_database_handlers
from chassis.events.consumer import EventHandler, consumer_router
from chassis.events.inbox import run_inbox_purge
from chassis.events.relay import Relay
from chassis.http.errors import install_peer_error_handlers
from chassis.idempotency import run_idempotency_purge
from chassis.lifespan import Service, Setup
from chassis.metrics import LagSampler, register_process, request_metrics
from chassis.middleware import RequestMiddleware
from chassis.probes import PATHS, add_probes
from chassis.problems import install_problem_handlers
from chassis.routes import RouteLabels, include_flat
from chassis.runtime import Runtime
from chassis.server_span import ServerSpans
from chassis.settings import DatabaseSettings, ServiceSettings
from chassis.stack import FastStack, guarded
from chassis.telemetry import Sampling, build_provider
from chassis.versions import ApiVersion, VersionTable
from chassis.workers import Worker


class ServiceApp(FastAPI):
    """FastAPI inside the request middleware, so that nothing of a request escapes it."""

    def __init__(
        self,
        runtime: Runtime,
        versions: Sequence[ApiVersion],
        around: Callable[[ASGIApp], ASGIApp] | None,
        polled: frozenset[str],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.state.runtime = runtime
        self._runtime = runtime
        self._versions = versions
        self._around = around
        self._polled = polled
        self._entry: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self._entry(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's stack with the chassis' own outer end.

        Called once, when routes, handlers and middleware are complete; so this is also where the
        request middleware is put around all of it.
        """
        whole: ASGIApp = super().__call__
        short: ASGIApp = FastStack(self, self.router, self.exception_handlers)
        short = whole if self.user_middleware else short
        self._entry = _middleware(
            self, self._runtime, self._versions, whole, short, polled=self._polled
        )
        if self._around is not None:
            self._entry = self._around(self._entry)
        return guarded(super().build_middleware_stack(), self._runtime.settings.max_body_bytes)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with problems as the error answers."""
        if not self.openapi_schema:
            issuer = self._runtime.settings.issuer
            self.openapi_schema = openapi.customise(super().openapi(), issuer)
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
    around: Callable[[ASGIApp], ASGIApp] | None = None,
    polled: Iterable[str] = (),
    clock: Clock | None = None,
    span_exporter: SpanExporter | None = None,
) -> FastAPI:
    """Return the application of a service. Nothing is opened before its lifespan.

    Args:
        settings: the loaded settings.
        title: the name of the API, for its document.
        description: what it is for, in Markdown.
        routers: routes outside of any version.
        versions: the versions of the API; each router is served under `/<name>`.
        outbox: run the relay that delivers this service's events.
        inbox: keep the inbox of received events clean; implied by `consumers`.
        idempotency: delete expired idempotency keys.
        consumers: handlers by CloudEvent type, served at `POST /events`.
        workers: background loops by name; restarted when they fail, cancelled at the end.
        setup: opens and closes the service's own resources, once its database is migrated.
        around: puts a layer around everything; it sees each answer as it leaves, errors too.
        polled: paths that machines ask for again and again; such a request begins no trace.
        clock: replaces the system's, for tests.
        span_exporter: replaces the OTLP exporter, for tests.
    """
    runtime = Runtime(
        settings,
        clock=clock or SystemClock(),
        registry=CollectorRegistry(),
        tracer_provider=build_provider(settings, span_exporter),
    )
    loops = _loops(
        runtime, workers or {}, outbox=outbox, inbox=inbox or bool(consumers), keys=idempotency
    )
    runtime.loops = tuple(loops)
    if not settings.serverless:
        import_module("chassis.http.transport")  # slow: at the start rather than at the first call
    service = Service(runtime, workers={} if settings.serverless else loops, setup=setup)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = ServiceApp(
        runtime,
        versions,
        around,
        frozenset(polled),
        title=title,
        description=description,
        version=settings.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would name the scheme that this process sees, and behind TLS that is http: a
        # client would send its password again, in clear.
        redirect_slashes=False,
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
    install_problem_handlers(app)
    install_peer_error_handlers(app)
    if isinstance(settings, DatabaseSettings):
        install_database_handlers(app)
    for version in versions:
        deprecated = version.deprecated is not None
        include_flat(app, version.router, prefix=f"/{version.name}", deprecated=deprecated)
    for router in routers:
        include_flat(app, router)
    if consumers:
        include_flat(app, consumer_router(consumers))
    add_probes(app, runtime)
    if settings.docs_enabled:
        # Last, so that the router finds the service's own routes first.
        app.openapi_url, app.docs_url, app.redoc_url = "/openapi.json", "/docs", "/redoc"
        app.setup()
    register_process(runtime.registry, settings)
    return app


def _loops(
    runtime: Runtime,
    workers: Mapping[str, Worker],
    *,
    outbox: bool,
    inbox: bool,
    keys: bool,
) -> dict[str, Worker]:
    lag = LagSampler(runtime.registry)
    loops: dict[str, Worker] = {"event-loop-lag": lambda _: lag.run(), **workers}
    if outbox:
        loops["outbox-relay"] = lambda runtime: Relay(runtime).run()
    if inbox:
        loops["inbox-purge"] = run_inbox_purge
    if keys:
        loops["idempotency-purge"] = run_idempotency_purge
    return loops


def _middleware(
    app: FastAPI,
    runtime: Runtime,
    versions: Sequence[ApiVersion],
    whole: ASGIApp,
    short: ASGIApp,
    *,
    polled: frozenset[str],
) -> RequestMiddleware:
    settings, provider = runtime.settings, runtime.tracer_provider
    firsts = {str(getattr(route, "path", "/")).split("/")[1] for route in app.routes}
    return RequestMiddleware(
        whole,
        short,
        metrics=request_metrics(runtime.registry),
        labels=RouteLabels(app),
        lifecycle=runtime.lifecycle,
        clock=runtime.clock,
        sampling=Sampling(settings.trace_sample_ratio, records=provider is not None),
        spans=None if provider is None else ServerSpans(provider.processor, provider.resource),
        timeout=settings.request_timeout_seconds,
        access_log=AccessLog(settings, LineWriter().write) if settings.access_log else None,
        versions=(
            VersionTable(versions, firsts - {version.name for version in versions})
            if versions
            else None
        ),
        quiet=PATHS,
        polled=polled,
    )
