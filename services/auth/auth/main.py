"""The application: users, tokens and the keys that sign them."""

from __future__ import annotations

from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SpanExporter

from auth import maintenance
from auth.api import internal, v1, wellknown
from auth.oauth import OAuthError, on_oauth_error
from auth.settings import Settings
from auth.state import running
from chassis.app import create_app as create_service
from chassis.clock import Clock
from chassis.settings import load_settings
from chassis.versions import ApiVersion

DESCRIPTION = """\
Sign-up, OAuth2 tokens (RFC 6749) with the keys that verify them (RFC 7517), API keys, and
`POST /login/`, which says whether an `Authorization` header is good.
"""


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    span_exporter: SpanExporter | None = None,
) -> FastAPI:
    """Return the auth service."""
    app = create_service(
        settings or load_settings(Settings),
        title="auth",
        description=DESCRIPTION,
        versions=[ApiVersion("v1", v1)],
        routers=[internal],
        workers={"signing-keys": maintenance.reload_keys, "purge": maintenance.purge},
        setup=running,
        polled=[wellknown.JWKS_PATH],
        clock=clock,
        span_exporter=span_exporter,
    )
    app.add_exception_handler(OAuthError, on_oauth_error)
    return app
