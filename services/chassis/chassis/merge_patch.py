"""JSON Merge Patch (RFC 7396): the algorithm, and what a PATCH operation needs around it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

MEDIA_TYPE = "application/merge-patch+json"

T = TypeVar("T")


def merge_patch(document: Any, patch: Any) -> Any:
    """Return `document` changed by `patch`; neither is modified.

    Members of the patch replace those of the document, objects are merged, null removes, and
    anything that is not an object replaces the whole document.
    """
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def patched(validate: Callable[[Any], T], document: Any, patch: Any) -> T:
    """Return what `validate` (a model's `model_validate`) makes of the changed document.

    Raises:
        RequestValidationError: 422, the document is not valid any more; it names the fields.
    """
    try:
        return validate(merge_patch(document, patch))
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        ) from None


def merge_patch_body(model: str) -> dict[str, Any]:
    """Return the `openapi_extra=` that allows a merge patch to be sent as plain JSON too."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
