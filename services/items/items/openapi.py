"""Pieces of the OpenAPI document that both versions share."""

from typing import Any

from pydantic import BaseModel

_ETAG = {
    "ETag": {
        "description": "Names this state of the item; send it as `If-Match` with a change.",
        "schema": {"type": "string"},
    }
}
_LOCATION = {"Location": {"description": "Where the item is.", "schema": {"type": "string"}}}

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The client has this state already", "headers": _ETAG}
}


def shows_item() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` entry of an operation that answers with an item."""
    return {200: {"description": "The item", "headers": _ETAG}}


def creates_item(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` entry of an operation that may create an item."""
    return {201: {"model": model, "description": "The new item", "headers": {**_ETAG, **_LOCATION}}}


def merge_patch_body(model: str) -> dict[str, Any]:
    """Return the `openapi_extra=` that allows a merge patch to be sent as plain JSON too."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
