"""Pieces of the OpenAPI document that both versions share."""

from typing import Any

from pydantic import BaseModel

from chassis.etags import ETAG_HEADER

_LOCATION = {"Location": {"description": "Where the item is.", "schema": {"type": "string"}}}


def shows_item() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` entry of an operation that answers with an item."""
    return {200: {"description": "The item", "headers": ETAG_HEADER}}


def creates_item(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` entry of an operation that may create an item."""
    return {
        201: {
            "model": model,
            "description": "The new item",
            "headers": {**ETAG_HEADER, **_LOCATION},
        }
    }
