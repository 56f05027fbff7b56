"""FastAPI dependencies that say who calls and what that caller may do (RFC 6750).

`requires("items:write")` is a dependency: use it as `Annotated[Principal, requires(...)]`, or in
`dependencies=[...]` of a router. It also puts the scope into the OpenAPI document.
"""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import Depends, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.openapi.models import OAuth2 as OAuth2Model
from fastapi.openapi.models import OAuthFlowPassword, OAuthFlows
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from chassis.http.retry import whole_seconds
from chassis.problems import Problem
from chassis.security.jwks import KeysUnavailableError
from chassis.security.principal import Principal
from chassis.security.verifier import InvalidTokenError, TokenVerifier

REALM = "slipway"
TOKEN_URL = "/v1/token"  # noqa: S105  (a path)
OAUTH2_SCHEME = "OAuth2"
BEARER_SCHEME = "Bearer"
INVALID_TOKEN_TYPE = "urn:slipway:problem:invalid-token"  # noqa: S105
INSUFFICIENT_SCOPE_TYPE = "urn:slipway:problem:insufficient-scope"
KEYS_TYPE = "urn:slipway:problem:token-keys-unavailable"


# What a dependency's own security scheme says costs a request nothing; a sub-dependency for each
# scheme would be solved with every request. FastAPI lets one have one: `declare` adds the other.
_OAUTH2 = OAuth2Model(
    flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl=TOKEN_URL, scopes={})),
    description="Sign in with email and password.",
)
_BEARER = HTTPBearerModel(
    bearerFormat="JWT", description="An access token that you already have."
).model_dump(mode="json", by_alias=True, exclude_none=True)


class _Required(SecurityBase):
    scheme_name = OAUTH2_SCHEME
    model = _OAUTH2

    async def __call__(self, conn: HTTPConnection, needed: SecurityScopes) -> Principal:
        principal = await authenticate(conn)
        if principal is None:
            raise unauthorized()
        missing = [scope for scope in needed.scopes if scope not in principal.scopes]
        if missing:
            raise forbidden(missing, needed.scopes)
        return principal


class _Optional(SecurityBase):
    scheme_name = OAUTH2_SCHEME
    model = _OAUTH2

    async def __call__(self, conn: HTTPConnection) -> Principal | None:
        return await authenticate(conn)


_required, _optional = _Required(), _Optional()


def requires(*scopes: str) -> Any:
    """Return the dependency that gives the `Principal` of a caller who has all of `scopes`.

    Answers 401 without a valid token, 403 without a scope, 503 when no token can be judged.
    """
    return Security(_required, scopes=list(scopes))


Caller = Annotated[Principal, requires()]
"""Any caller with a valid token."""

MaybeCaller = Annotated[Principal | None, Depends(_optional)]
"""The caller, or None without a bearer token; a bad token is still refused."""


async def authenticate(conn: HTTPConnection) -> Principal | None:
    """Return who the bearer token of a request speaks for, or None without one.

    For a dependency of your own; `requires` and `MaybeCaller` are made of it.

    Raises:
        Problem: 401 for a bad token, 400 for two headers, 503 when no token can be judged.
    """
    values = conn.headers.getlist("Authorization")
    if not values:
        return None
    if len(values) > 1:
        raise Problem(
            400,
            detail="More than one Authorization header was sent.",
            headers=_challenge(error="invalid_request"),
        )
    scheme, _, token = values[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    principal = await principal_of(
        token.strip(), cast("TokenVerifier", conn.app.state.runtime.verifier)
    )
    conn.state.principal = principal
    return principal


async def principal_of(token: str, verifier: TokenVerifier) -> Principal:
    """Return who an access token speaks for, wherever the token was sent.

    Raises:
        Problem: 401 for a bad token, 503 when no token can be judged.
    """
    try:
        return await verifier.verify(token)
    except InvalidTokenError as exc:
        raise unauthorized(str(exc)) from exc
    except KeysUnavailableError as exc:
        raise Problem(
            503,
            detail="Tokens cannot be verified now; try again later.",
            type=KEYS_TYPE,
            headers={"Retry-After": whole_seconds(exc.retry_after)},
        ) from exc


def unauthorized(reason: str | None = None) -> Problem:
    """Return the 401 problem: without `reason` no token was sent, with it the token is bad."""
    if reason is None:
        return Problem(401, detail="An access token is needed.", headers=_challenge())
    return Problem(
        401,
        detail=f"The access token was refused: {reason}.",
        type=INVALID_TOKEN_TYPE,
        headers=_challenge(error="invalid_token", error_description=reason),
    )


def forbidden(missing: list[str], needed: list[str]) -> Problem:
    """Return the 403 problem that names the missing scopes."""
    names = " ".join(missing)
    return Problem(
        403,
        detail=f"The access token lacks the scope {names}.",
        type=INSUFFICIENT_SCOPE_TYPE,
        headers=_challenge(error="insufficient_scope", scope=" ".join(needed)),
        missing_scopes=missing,
    )


def _challenge(**parameters: str) -> dict[str, str]:
    pairs: Mapping[str, str] = {"realm": REALM, **parameters}
    listed = ", ".join(f'{name}="{value}"' for name, value in pairs.items())
    return {"WWW-Authenticate": f"Bearer {listed}"}


def declare(document: dict[str, Any], issuer: str) -> None:
    """Complete the security of an OpenAPI document.

    Wherever OAuth2 is asked for, an access token that one already has does as well; and the OAuth2
    scheme lists the scopes that the operations ask for. Tokens are had from `issuer`, the public
    URL of the gateway: a page of one service would ask that service for them.
    """
    schemes = document.get("components", {}).get("securitySchemes", {})
    if OAUTH2_SCHEME not in schemes:
        return
    schemes[BEARER_SCHEME] = _BEARER
    found: set[str] = set()
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict) and (asked := _scopes(operation)) is not None:
                found.update(asked)
                operation["security"].append({BEARER_SCHEME: list(asked)})
    flow = schemes[OAUTH2_SCHEME]["flows"]["password"]
    flow["tokenUrl"] = f"{issuer.rstrip('/')}{TOKEN_URL}"
    flow["scopes"] = {scope: _describe(scope) for scope in sorted(found)}


def _scopes(operation: dict[str, Any]) -> list[str] | None:
    for requirement in operation.get("security", []):
        if OAUTH2_SCHEME in requirement:
            scopes: list[str] = requirement[OAUTH2_SCHEME]
            return scopes
    return None


def _describe(scope: str) -> str:
    noun, _, verb = scope.partition(":")
    return f"{verb.capitalize()} {noun}" if verb else f"Read your {noun}"
