"""Discovery documents: what clients and verifiers look up."""

from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from auth.main import create_app
from auth.settings import Settings


async def test_both_documents_describe_this_server(api: Any) -> None:
    """RFC 8414, and the same where OpenID clients look; every endpoint they name exists."""
    oauth = await api.http.get("/.well-known/oauth-authorization-server")
    openid = await api.http.get("/.well-known/openid-configuration")
    for answer in (oauth, openid):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=60"
        document = answer.json()
        assert document["issuer"] == "http://auth.test"
        assert "RS256" in str(document) or answer is oauth
        assert set(document["grant_types_supported"]) == {
            "password",
            "refresh_token",
            "client_credentials",
        }
        # What the gateway routes; a page of documentation is none of it.
        own = {name for name, value in document.items() if "http://auth.test/" in str(value)}
        assert own == {"jwks_uri", "token_endpoint", "revocation_endpoint"}
        keys = document["jwks_uri"].removeprefix("http://auth.test")
        assert (await api.http.get(keys)).status_code == 200
        for name in ("token_endpoint", "revocation_endpoint"):
            path = document[name].removeprefix("http://auth.test")
            assert (await api.http.post(path)).status_code == 400
    assert oauth.json().items() <= openid.json().items()


async def test_every_scope_that_is_given_is_listed(api: Any) -> None:
    """A user's, at least."""
    listed = (await api.http.get("/.well-known/openid-configuration")).json()["scopes_supported"]
    assert set((await api.session())["scope"].split()) <= set(listed)


async def test_fetches_of_the_keys_begin_no_traces(
    auth_settings: Callable[..., Settings], app_client: Any
) -> None:
    """Each gateway and service asks again and again; one that is part of a request stays in it."""
    exporter = InMemorySpanExporter()
    settings = auth_settings(access_log=False, trace_sample_ratio=1)
    app = create_app(settings, span_exporter=exporter)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with app_client(app) as http:
        assert (await http.get("/.well-known/jwks.json")).status_code == 200
        parent = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        assert (await http.get("/.well-known/jwks.json", headers=parent)).status_code == 200
        app.state.runtime.tracer_provider.force_flush()
    spans = exporter.get_finished_spans()
    assert "GET /.well-known/jwks.json" in {span.name for span in spans}
    # The keys' own loops begin none either.
    assert {format(span.context.trace_id, "032x") for span in spans} == {trace_id}
