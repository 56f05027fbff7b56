"""API keys of the caller."""

from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Response
from sqlalchemy import select

from auth.api_keys import TooManyKeysError
from auth.models import ApiKey as ApiKeyRow
from auth.models import User
from auth.schemas import ApiKey, ApiKeyWithSecret, NewApiKey
from auth.settings import LOGIN_SCOPES
from auth.state import AuthDep
from chassis.database import ReadSessionDep, SessionDep
from chassis.pagination import CursorParams, Page, paginate
from chassis.problems import VALIDATION_TYPE, Problem, problems
from chassis.security import Principal, requires

_AUDIT = structlog.stdlib.get_logger("auth.audit")
KeyId = Annotated[
    str,
    Path(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
]


# A whole login has it. A narrowed token or a key that leaks must not make keys that outlive it.
Manager = Annotated[Principal, requires(*LOGIN_SCOPES)]
router = APIRouter(prefix="/keys", tags=["API keys"])


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **problems(401, 403, 404, 409, 422),
    },
)
async def create_key(
    body: NewApiKey, auth: AuthDep, session: SessionDep, caller: Manager, response: Response
) -> ApiKeyWithSecret:
    """Make a key for a program. The answer shows it this once; only a hash of it is kept.

    Send it as `X-API-Key` through the gateway. Its scopes are some of those of your token, which
    needs `keys:manage` as the token of a whole login has it; a key never does.
    """
    now = auth.clock.now()
    expires_at = body.expires_at or now + timedelta(days=auth.settings.api_key_days)
    if not now < expires_at <= now + timedelta(days=auth.settings.api_key_max_days):
        raise _refused(
            "expires_at", f"must be within the next {auth.settings.api_key_max_days} days"
        )
    if any(scope in LOGIN_SCOPES for scope in body.scopes):
        raise _refused("scopes", "API keys are managed with a login, not with an API key")
    if excess := [scope for scope in body.scopes if scope not in caller.scopes]:
        raise Problem(
            403,
            detail=f"Your token does not have the scope {excess[0]}.",
            type="urn:slipway:problem:insufficient-scope",
        )
    if await session.get(User, caller.subject) is None:
        raise Problem(404, detail="This token does not belong to a user.")
    try:
        row, text = await auth.api_keys.create(
            session, caller.subject, name=body.name, scopes=body.scopes, expires_at=expires_at
        )
    except TooManyKeysError:
        raise Problem(
            409,
            detail=f"You have {auth.settings.api_keys_per_user} keys. Revoke one first.",
            type="urn:slipway:problem:too-many-keys",
        ) from None
    _AUDIT.info("api_key.created", key_id=row.id, user_id=caller.subject)
    response.headers["Location"] = f"/v1/keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyWithSecret.model_validate({**ApiKey.members(row), "key": text})


@router.get("", summary="List your API keys", responses=problems(400, 401, 403, 422))
async def list_keys(session: ReadSessionDep, caller: Manager, page: CursorParams) -> Page[ApiKey]:
    """List your keys, the newest first, revoked and expired ones too."""
    query = select(ApiKeyRow).where(ApiKeyRow.owner_id == caller.subject)
    rows, next_cursor = await paginate(
        session, query, [ApiKeyRow.id.desc()], page, scope=caller.subject
    )
    return Page(items=[ApiKey.of(row) for row in rows], next_cursor=next_cursor)


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    responses=problems(401, 403, 404, 422),
)
async def revoke_key(key_id: KeyId, auth: AuthDep, session: SessionDep, caller: Manager) -> None:
    """Revoke a key for good. It may work for five seconds more at the gateway.

    With the scope `keys:admin` anybody's, otherwise your own; the others do not exist for you.
    """
    row = await session.get(ApiKeyRow, key_id)
    if row is None or (row.owner_id != caller.subject and "keys:admin" not in caller.scopes):
        raise Problem(404, detail="You have no such key.")
    await auth.api_keys.revoke(session, row)
    _AUDIT.info("api_key.revoked", key_id=row.id, by=caller.subject)


def _refused(field: str, message: str) -> Problem:
    return Problem(
        422,
        detail="The request does not fit the schema; see errors.",
        type=VALIDATION_TYPE,
        errors=[{"loc": ["body", field], "message": message, "type": "value_error"}],
    )
