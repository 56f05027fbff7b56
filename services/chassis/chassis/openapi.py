"""The OpenAPI document: every operation lists the problems it can answer."""

from __future__ import annotations

from typing import Any

from chassis.problems import MEDIA_TYPE, ProblemDetails, phrase
from chassis.security.dependencies import declare

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_FIRST_ERROR = 400
_REF = {"$ref": "#/components/schemas/ProblemDetails"}


def customise(document: dict[str, Any], issuer: str) -> dict[str, Any]:
    """Change `document` in place, with problems instead of FastAPI's own errors; return it.

    `issuer` is the URL where clients get tokens.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    schemas.setdefault("ProblemDetails", schema)
    for path in document.get("paths", {}).values():
        for method in _METHODS:
            if method in path:
                _add_problems(path[method])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    declare(document, issuer)
    return document


def _add_problems(operation: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    # Any request may meet text that cannot be stored, a fault, a database or peer that is away, or
    # a budget that is spent; one with a body also a malformed or too large one.
    common = [422, 500, 503, 504]
    if "requestBody" in operation:
        common += [400, 413]
    if security := operation.get("security"):
        common.append(401)
        if any(scopes for requirement in security for scopes in requirement.values()):
            common.append(403)
    for status in common:
        responses.setdefault(str(status), {"description": phrase(status)})
    for key, response in responses.items():
        is_error = (key.isdigit() and int(key) >= _FIRST_ERROR) or key in {"4XX", "5XX", "default"}
        if is_error and not _has_own_shape(response):
            examples = {
                media: {"examples": content["examples"]}
                for media, content in response.get("content", {}).items()
                if "examples" in content
            }
            response["content"] = {
                MEDIA_TYPE: {"schema": _REF, **next(iter(examples.values()), {})}
            }


def _has_own_shape(response: dict[str, Any]) -> bool:
    """Tell whether an error was declared with a model that another standard asks for (OAuth)."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    own: str = schema.get("$ref", "")
    return bool(own) and not own.endswith(("/ProblemDetails", "/HTTPValidationError"))
