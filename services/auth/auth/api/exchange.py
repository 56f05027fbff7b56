"""`POST /internal/exchange`: the gateway swaps an API key for an access token."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from auth.state import AuthDep
from chassis.problems import Problem, problems

router = APIRouter(prefix="/internal/exchange", tags=["internal"])

# Envoy asks with the method of the request that it holds back.
_OTHERS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.post("", summary="Swap an API key for a token", responses=problems(401, 403, 503))
@router.api_route("", methods=_OTHERS, include_in_schema=False)
async def exchange(
    auth: AuthDep,
    response: Response,
    x_api_key: Annotated[str, Header(description="The key: slk_<id>_<secret>.")] = "",
) -> dict[str, str]:
    """Answer 200 with the header `Authorization: Bearer <token>` for a valid `X-API-Key`.

    Envoy puts that header on the request and the services see a token like any other. Not routed
    from outside. The token lives for a minute; it stays between Envoy and the services.
    """
    token = await auth.api_keys.exchange(x_api_key)
    if token is None:
        auth.metrics.exchanges.labels("refused").inc()
        raise Problem(
            401,
            detail="The API key is unknown, expired or revoked.",
            type="urn:slipway:problem:invalid-api-key",
            headers={"WWW-Authenticate": 'ApiKey realm="slipway"', "Cache-Control": "no-store"},
        )
    if not token.scope:
        auth.metrics.exchanges.labels("no_scope").inc()
        raise Problem(
            403,
            detail="The owner of the API key has none of its scopes any more.",
            type="urn:slipway:problem:insufficient-scope",
            headers={"Cache-Control": "no-store"},
        )
    auth.metrics.exchanges.labels("granted").inc()
    response.headers["Authorization"] = f"Bearer {token.value}"
    response.headers["Cache-Control"] = "no-store"
    return {"scope": token.scope}
