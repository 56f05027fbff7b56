"""The wire format of the token endpoint: form bodies in, OAuth errors out (RFC 6749).

OAuth fixes the media type of its errors (`application/json`) and two members (`error`,
`error_description`). The members of a problem (RFC 9457) stand beside them, so that a client of
either standard reads the same answer.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.responses import Response

from chassis.problems import Problem, problem_response
from chassis.text_guard import UnusableTextError

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 20


class OAuthError(Problem):
    """An error of the token or revocation endpoint, with a code of RFC 6749 section 5.2."""

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            status,
            detail=description,
            type=f"urn:slipway:problem:{error.replace('_', '-')}",
            headers={**NO_STORE, **(headers or {})},
            error=error,
            error_description=description,
        )


async def on_oauth_error(request: Request, exc: Exception) -> Response:
    """Answer an `OAuthError` in the media type that OAuth clients expect."""
    assert isinstance(exc, OAuthError)
    response = problem_response(exc, request.scope)
    response.headers["Content-Type"] = "application/json"
    return response


async def read_form(request: Request) -> dict[str, str]:
    """Return the parameters of a form body; one without a value counts as omitted (section 3.1).

    Raises:
        OAuthError: another media type, not UTF-8, a repeated parameter, too many parameters.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise OAuthError("invalid_request", f"The body must be {FORM}.")
    try:
        body = await request.body()
        pairs = parse_qsl(
            body.decode("ascii"), max_num_fields=_MAX_FIELDS, encoding="utf-8", errors="strict"
        )
    except (ValueError, UnusableTextError):
        raise OAuthError("invalid_request", "The body is not a well-formed form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "A parameter is given more than once.")
    return form


def require(form: Mapping[str, str], name: str) -> str:
    """Return a parameter that must be there.

    Raises:
        OAuthError: `invalid_request` if it is not.
    """
    if not form.get(name):
        raise OAuthError("invalid_request", f"The parameter {name} is missing.")
    return form[name]
