"""`POST /login/`: is this `Authorization` header good?"""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from auth.lockout import client_address
from auth.logins import BadCredentialsError, LockedOutError
from auth.schemas import LoginResult
from auth.state import AuthDep
from chassis.problems import Problem, problems

router = APIRouter(tags=["login"])

_CHALLENGES = 'Basic realm="slipway", charset="UTF-8", Bearer realm="slipway", ApiKey'


@router.post("/login", include_in_schema=False)
@router.post("/login/", summary="Check an Authorization header", responses=problems(401, 503))
async def login(
    request: Request,
    response: Response,
    auth: AuthDep,
    authorization: Annotated[
        str, Header(description="Basic e-mail and password, Bearer token or key, or ApiKey key.")
    ] = "",
) -> LoginResult:
    """Answer 200 and who it is, or 401.

    Taken are `Basic` (e-mail address and password), `Bearer` (an access token or an API key) and
    `ApiKey`. A locked account is 401 too, with `Retry-After`.
    """
    response.headers["Cache-Control"] = "no-store"
    address = client_address(request, auth.settings.trusted_proxy_hops)
    headers = {"WWW-Authenticate": _CHALLENGES, "Cache-Control": "no-store"}
    try:
        who = await auth.logins.by_header(authorization, address)
    except LockedOutError as exc:
        raise Problem(
            401,
            detail=f"Too many failed logins. Try again in {exc.retry_after} seconds.",
            type="urn:slipway:problem:locked-out",
            headers={**headers, "Retry-After": str(exc.retry_after)},
        ) from None
    except BadCredentialsError:
        raise Problem(
            401, detail="The Authorization header is missing or not valid.", headers=headers
        ) from None
    return LoginResult(subject=who.subject, scopes=list(who.scopes), method=who.method)
