"""Errors as RFC 9457 problem details, the one shape of every 4xx and 5xx answer.

Raise `Problem` anywhere in a request. Validation errors, `HTTPException`, unmatched routes and
unhandled exceptions are turned into the same shape by the handlers of `install_problem_handlers`.
Malformed JSON is 400; JSON that breaks the schema is 422 with one entry per field. An unhandled
exception is logged with its traceback and answers a bare 500: nothing of it leaves the process.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import context
from chassis.logs import get_logger

MEDIA_TYPE = "application/problem+json"
VALIDATION_TYPE = "urn:slipway:problem:validation"
MAX_ERRORS = 100
"""How many fields one answer names: a body of a megabyte may have a hundred thousand bad ones."""
MALFORMED_TYPE = "urn:slipway:problem:malformed-body"

_NOT_JSON = "This should be JSON; send it as Content-Type: application/json"

_log = get_logger("chassis.problems")


class Problem(Exception):  # noqa: N818  (the name that RFC 9457 gives it)
    """An error answer: raise it to end the request with `status`.

    `type` is a URI naming the kind of problem, `detail` explains this occurrence to a person,
    `extensions` become further members of the JSON object.
    """

    def __init__(
        self,
        status: int,
        title: str | None = None,
        *,
        detail: str | None = None,
        type: str = "about:blank",  # noqa: A002  (the name that RFC 9457 gives it)
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        self.status = status
        self.title = title or phrase(status)
        self.detail = detail
        self.type = type
        self.headers = dict(headers or {})
        self.extensions = extensions
        super().__init__(f"{status} {self.title}" + (f": {detail}" if detail else ""))


class FieldError(BaseModel):
    """One field that was refused."""

    loc: list[str | int] = Field(
        description="Where: body, query, path, header or cookie, then the way to the field.",
        examples=[["body", "lines", 0, "quantity"]],
    )
    message: str = Field(examples=["Input should be greater than 0"])
    type: str = Field(description="The rule that was broken.", examples=["greater_than"])


class ProblemDetails(BaseModel):
    """An error (RFC 9457). Further members may appear, by type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(default="about:blank", description="A URI naming the kind of problem.")
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str | None = Field(default=None, description="What happened this time.")
    instance: str | None = Field(default=None, description="The path that was asked for.")
    request_id: str | None = None
    trace_id: str | None = None
    errors: list[FieldError] | None = Field(default=None, description="With 422: the fields.")


def phrase(status: int) -> str:
    """Return the standard reason phrase of `status`."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_response(problem: Problem, scope: Scope | None = None) -> Response:
    """Return `problem` as a response; `scope` (an ASGI scope) gives `instance`."""
    if not is_body_allowed_for_status_code(problem.status):
        return Response(status_code=problem.status, headers=problem.headers)
    content: dict[str, Any] = {
        **problem.extensions,
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
    }
    if problem.detail is not None:
        content["detail"] = problem.detail
    if scope is not None and (instance := _instance(scope)):
        content["instance"] = instance
    current = context.current.get()
    if current is not None:
        content["request_id"] = current.request_id
        content["trace_id"] = current.trace_id
    # ASCII output: a lone surrogate in an echoed value stays an escape and cannot fail to encode.
    body = json.dumps(content, ensure_ascii=True, default=str).encode("ascii")
    return Response(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` entry of a route that can answer these error statuses."""
    return {
        status: {
            "model": ProblemDetails,
            "description": phrase(status),
            "content": {MEDIA_TYPE: {}},
        }
        for status in statuses
    }


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, on_unhandled)


async def _on_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return problem_response(exc, request.scope)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    ready = getattr(exc, "problem", None)
    if isinstance(ready, Problem):
        return problem_response(ready, request.scope)
    detail: Any = exc.detail  # FastAPI allows anything here
    problem = Problem(exc.status_code, headers=exc.headers)
    if isinstance(detail, Mapping):
        problem.extensions = {str(key): value for key, value in detail.items()}
    elif detail and str(detail) != phrase(exc.status_code):
        problem.detail = str(detail)
    return problem_response(problem, request.scope)


async def _on_validation_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return problem_response(validation_problem(exc.errors()), request.scope)


def validation_problem(errors: Sequence[Any]) -> Problem:
    """Return the problem of these pydantic errors: 400 for malformed JSON, else 422.

    It names the first `MAX_ERRORS`.
    """
    malformed = next((error for error in errors if error["type"] == "json_invalid"), None)
    if malformed is not None:
        return Problem(
            400,
            detail=f"The body is not valid JSON: {malformed.get('ctx', {}).get('error', '')}.",
            type=MALFORMED_TYPE,
        )
    return Problem(
        422,
        detail="The request does not fit the schema; see errors.",
        type=VALIDATION_TYPE,
        errors=[
            {"loc": list(error["loc"]), "message": _message(error), "type": error["type"]}
            for error in errors[:MAX_ERRORS]
        ],
    )


def _message(error: Mapping[str, Any]) -> str:
    # FastAPI leaves a body of another media type, or of none, as the bytes that came.
    if tuple(error["loc"]) == ("body",) and isinstance(error.get("input"), bytes):
        return _NOT_JSON
    return str(error["msg"])


async def on_unhandled(request: Request, exc: Exception) -> Response:
    """Answer an exception that nothing handled; the caller logs it."""
    del exc
    return problem_response(Problem(500), request.scope)


def _instance(scope: Scope) -> str:
    raw = scope.get("chassis.path") or scope.get("raw_path")
    if isinstance(raw, bytes):
        return raw.decode("latin-1")
    return str(scope.get("path", ""))


class UnhandledMiddleware:
    """Pure ASGI: answers what no handler caught with a bare 500, and logs it with its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":  # the server says what keeps the service from starting
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Problem as problem:
            if _begun(scope):
                raise
            await problem_response(problem, scope)(scope, receive, send)
        except Exception as exc:
            _log.exception("request.failed", method=scope.get("method"), path=scope.get("path"))
            if (request := context.current.get()) is not None:
                request.error = type(exc)  # for its span
            if _begun(scope):
                raise  # half an answer cannot be mended: the server cuts the connection
            await problem_response(Problem(500), scope)(scope, receive, send)


def _begun(scope: Scope) -> bool:
    return scope["type"] != "http" or bool(getattr(context.current.get(), "status", 0))
