"""What verifiers and clients look up: public keys and discovery documents."""

from typing import Any

from fastapi import APIRouter, Response

from auth.settings import ADMIN_SCOPES, LOGIN_SCOPES, SERVICE_SCOPES, USER_SCOPES
from auth.signing_keys import ALGORITHM
from auth.state import AuthDep
from chassis.problems import problems

JWKS_PATH = "/.well-known/jwks.json"
"""Where each service and each gateway fetches the keys, twice a minute."""

router = APIRouter(prefix="/.well-known", tags=["discovery"])

# Shorter than key_publish_ahead_seconds, so that nobody misses a key before it signs.
_CACHE = {"Cache-Control": "public, max-age=60"}


@router.get("/jwks.json", summary="Public keys", responses=problems(503))
async def jwks(auth: AuthDep, response: Response) -> dict[str, list[dict[str, Any]]]:
    """Return the keys that verify access tokens (RFC 7517): next, active and retiring ones."""
    response.headers.update(_CACHE)
    keys = await auth.keys.key_set()
    return {"keys": [dict(key) for key in keys["keys"]]}


@router.get("/oauth-authorization-server", summary="Authorization server metadata")
async def oauth_metadata(auth: AuthDep, response: Response) -> dict[str, Any]:
    """Return the metadata of RFC 8414."""
    response.headers.update(_CACHE)
    issuer = auth.settings.issuer.rstrip("/")
    methods = ["client_secret_basic", "client_secret_post", "none"]
    return {
        "issuer": auth.settings.issuer,
        "token_endpoint": f"{issuer}/v1/token",
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": f"{issuer}/v1/token/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "jwks_uri": f"{issuer}{JWKS_PATH}",
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "response_types_supported": [],
        "scopes_supported": sorted({*USER_SCOPES, *LOGIN_SCOPES, *ADMIN_SCOPES, *SERVICE_SCOPES}),
    }


@router.get("/openid-configuration", summary="Metadata where OpenID clients look for it")
async def openid_configuration(auth: AuthDep, response: Response) -> dict[str, Any]:
    """Return the same metadata with the members that OpenID Connect Discovery 1.0 requires.

    Many libraries find the keys of an issuer only here. There are no ID tokens and no
    authorization endpoint: this server issues access tokens only.
    """
    return {
        **await oauth_metadata(auth, response),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }
