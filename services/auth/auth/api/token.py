"""The OAuth2 token endpoint (RFC 6749) and revocation (RFC 7009)."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from auth import scopes as scope_text
from auth import users
from auth.access_tokens import AccessToken
from auth.clients import Client
from auth.lockout import client_address
from auth.logins import BadCredentialsError, LockedOutError
from auth.oauth import FORM, NO_STORE, OAuthError, read_form, require
from auth.schemas import (
    EMAIL_EXAMPLE,
    PASSWORD_EXAMPLE,
    OAuthProblem,
    RevocationForm,
    TokenForm,
    TokenResponse,
)
from auth.sessions import Refreshed
from auth.state import Auth, AuthDep
from chassis.problems import problems

router = APIRouter(prefix="/token", tags=["tokens"])
_AUDIT = structlog.stdlib.get_logger("auth.audit")

_EXAMPLES = {
    "password": {
        "summary": "A person logs in",
        "value": {
            "grant_type": "password",
            "username": EMAIL_EXAMPLE,
            "password": PASSWORD_EXAMPLE,
        },
    },
    "refresh_token": {
        "summary": "A session goes on",
        "value": {"grant_type": "refresh_token", "refresh_token": "slr_0f3c..."},
    },
    "client_credentials": {
        "summary": "A service identifies itself (Basic carries the same as a header)",
        "value": {
            "grant_type": "client_credentials",
            "client_id": "orders",
            "client_secret": "the secret of orders",
            "scope": "inventory:reserve",
        },
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthProblem, "description": "An error of RFC 6749 section 5.2"},
    401: {"model": OAuthProblem, "description": "The client did not prove who it is"},
}
_LOCKED: dict[int | str, dict[str, Any]] = {
    429: {"model": OAuthProblem, "description": "Too many failures; see Retry-After"}
}


def _form_body(model: type[BaseModel], examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": model.model_json_schema()}
    if examples:
        content["examples"] = examples
    return {"requestBody": {"required": True, "content": {FORM: content}}}


@router.post(
    "",
    summary="Get an access token",
    responses={**_ERRORS, **_LOCKED, **problems(503)},
    openapi_extra=_form_body(TokenForm, _EXAMPLES),
    response_model=TokenResponse,
    response_model_exclude_none=True,
)
async def issue_token(request: Request, response: Response, auth: AuthDep) -> TokenResponse:
    """Exchange credentials for an access token.

    People use `password` and `refresh_token`, without client credentials; services use
    `client_credentials`. Errors carry the members of RFC 6749 and of RFC 9457 together.
    """
    form = await read_form(request)
    grant_type = require(form, "grant_type")
    if grant_type not in {"password", "refresh_token", "client_credentials"}:
        raise OAuthError("unsupported_grant_type", "The grant type is not supported.")
    client = auth.clients.identify(request.headers.get("authorization"), form)
    if client.confidential is not (grant_type == "client_credentials"):
        raise OAuthError("unauthorized_client", "This client may not use this grant type.")
    refresh_token: str | None = None
    match grant_type:
        case "password":
            address = client_address(request, auth.settings.trusted_proxy_hops)
            token, refresh_token = await _by_password(auth, form, client, address)
        case "refresh_token":
            token, refresh_token = await _by_refresh_token(auth, form, client)
        case _:
            token = await _by_client_credentials(auth, form, client)
    auth.metrics.tokens.labels(grant_type).inc()
    response.headers.update(NO_STORE)
    return TokenResponse(
        access_token=token.value,
        expires_in=token.expires_in,
        refresh_token=refresh_token,
        scope=token.scope,
    )


@router.post(
    "/revoke",
    summary="Log out",
    status_code=200,
    responses={200: {"description": "It is revoked, or was not valid", "content": {}}, **_ERRORS},
    response_class=Response,
    openapi_extra=_form_body(RevocationForm),
)
async def revoke_token(request: Request, auth: AuthDep) -> Response:
    """End the session that a refresh token belongs to, with all its refresh tokens.

    As RFC 7009 asks, an unknown token is a success too. An access token cannot be revoked: it
    ends by itself within minutes.
    """
    form = await read_form(request)
    auth.clients.identify(request.headers.get("authorization"), form)
    token = require(form, "token")
    if token.count(".") == 2:  # noqa: PLR2004  (the three parts of a JWT)
        raise OAuthError("unsupported_token_type", "Access tokens end by themselves.")
    async with auth.database.session() as session:
        ended = await auth.sessions.revoke(session, token, auth.clock.now())
    if ended:
        _AUDIT.info(
            "session.ended", reason="logout", session_id=ended.session_id, user_id=ended.user_id
        )
    return Response(status_code=200, headers=NO_STORE)


async def _by_password(
    auth: Auth, form: Mapping[str, str], client: Client, address: str
) -> tuple[AccessToken, str]:
    email, password = require(form, "username"), require(form, "password")
    try:
        identity = await auth.logins.by_password(email, password, address)
    except BadCredentialsError:
        raise OAuthError("invalid_grant", "The credentials are wrong.") from None
    except LockedOutError as exc:
        raise OAuthError(
            "temporarily_unavailable",
            f"Too many failed logins. Try again in {exc.retry_after} seconds.",
            status=429,
            headers={"Retry-After": str(exc.retry_after)},
        ) from None
    scopes = _narrow(form, identity.scopes)
    token = await auth.issuer.issue(identity.subject, scopes, client_id=client.id)
    async with auth.database.session() as session:
        refresh_token = await auth.sessions.open(
            session, identity.subject, scope_text.join(scopes), auth.clock.now()
        )
    return token, refresh_token


async def _by_refresh_token(
    auth: Auth, form: Mapping[str, str], client: Client
) -> tuple[AccessToken, str]:
    presented = require(form, "refresh_token")
    async with auth.database.session() as session:
        outcome = await auth.sessions.refresh(session, presented, auth.clock.now())
        if isinstance(outcome, Refreshed):
            # In the transaction: whatever fails here leaves the presented token as it was.
            token = await _for_session(auth, session, form, client, outcome)
            return token, outcome.token
    auth.metrics.refusals.labels(outcome.reason.value).inc()
    if ended := outcome.ended:
        _AUDIT.warning(
            "session.ended", reason="reuse", session_id=ended.session_id, user_id=ended.user_id
        )
    raise OAuthError("invalid_grant", "The refresh token is not valid any more.")


async def _for_session(
    auth: Auth, session: AsyncSession, form: Mapping[str, str], client: Client, refreshed: Refreshed
) -> AccessToken:
    user = await users.by_id(session, refreshed.user_id)
    held = users.login_scopes(user) if user else ()
    # What the account has lost since the login, the session has lost too.
    granted = tuple(scope for scope in scope_text.parse(refreshed.scopes) if scope in held)
    return await auth.issuer.issue(refreshed.user_id, _narrow(form, granted), client_id=client.id)


async def _by_client_credentials(
    auth: Auth, form: Mapping[str, str], client: Client
) -> AccessToken:
    scopes = _narrow(form, client.scopes)
    return await auth.issuer.issue(client.id, scopes, client_id=client.id)


def _narrow(form: Mapping[str, str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return scope_text.narrow(form.get("scope"), allowed)
    except ValueError as exc:
        raise OAuthError("invalid_scope", f"Refused: {exc}.") from None
