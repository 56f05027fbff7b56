"""Discovery documents: what clients and verifiers look up."""

from typing import Any


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
