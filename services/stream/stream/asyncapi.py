"""The AsyncAPI document of the WebSocket: made of the same models that check its messages."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stream.messages import ClientMessage, ServerMessage

router = APIRouter()

_REFS = "#/components/schemas/{model}"


@router.get("/asyncapi.json", include_in_schema=False)
async def read_document() -> Response:
    """Return the document (AsyncAPI 3.0)."""
    return JSONResponse(document())


@cache
def document() -> dict[str, Any]:
    """Return the AsyncAPI document of `/v1/stream`."""
    received, sent = _models(ClientMessage), _models(ServerMessage)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in (*received, *sent)], ref_template=_REFS
    )
    names = [model.__name__ for model in (*received, *sent)]
    channel = "#/channels/stream"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Slipway stream",
            "version": "1",
            "description": "Subprotocol `slipway.v1`; a token as `bearer.<token>` beside it, "
            "in the first message, or a ticket in the query.",
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            }
        },
        "operations": {
            action: {
                "action": action,
                "channel": {"$ref": channel},
                "messages": [{"$ref": f"{channel}/messages/{model.__name__}"} for model in models],
            }
            for action, models in (("receive", received), ("send", sent))
        },
        "components": {
            "messages": {
                name: {"payload": {"$ref": _REFS.format(model=name)}, "name": name}
                for name in names
            },
            "schemas": schemas["$defs"],
        },
    }


def _models(union: Any) -> tuple[type[BaseModel], ...]:
    return get_args(get_args(union)[0])
