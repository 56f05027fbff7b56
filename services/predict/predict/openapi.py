"""The OpenAPI document, with the rows of every model that serves now.

A model may come or go while the service runs, so the document is made anew when the table has
changed. Without a running service (`make openapi`) it shows the general shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from predict.model import Model
from predict.registry import Registry
from predict.schemas import PredictRequest
from predict.settings import MAX_ROWS
from predict.tensors import InferRequest

_REF = "#/components/schemas/"


def describe_models(app: FastAPI) -> None:
    """Make `app.openapi` describe the models that serve."""
    plain = app.openapi
    made: dict[int, dict[str, Any]] = {}

    def openapi() -> dict[str, Any]:
        predictor = app.state.runtime.extras.get("predictor")
        registry: Registry | None = None if predictor is None else predictor.registry
        generation = 0 if registry is None else registry.generation
        if generation not in made:
            app.openapi_schema = None
            document = plain()
            _add_shapes(document, registry)
            made.clear()
            made[generation] = document
        return made[generation]

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _add_shapes(document: dict[str, Any], registry: Registry | None) -> None:
    schemas = document["components"]["schemas"]
    for shape in (InferRequest, PredictRequest):
        schema = shape.model_json_schema(ref_template=_REF + "{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[shape.__name__] = schema
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    body["schema"] = {"$ref": f"{_REF}PredictRequest"}
    if registry is None or not registry.models:
        return
    choices = []
    for model, newest in _models(registry):
        row = f"Row.{model.card.name}.{model.card.version}"
        schemas[row] = json.loads(json.dumps(model.rows.schema).replace("#/$defs/", _REF))
        choices.append(_request(model, row, newest=newest, default=registry.default))
    body["schema"] = {"title": "PredictRequest", "anyOf": choices}
    body["examples"] = {
        model.card.name: {"value": {"model": model.card.name, "features": model.card.example}}
        for model, newest in _models(registry)
        if newest
    }


def _models(registry: Registry) -> Iterator[tuple[Model, bool]]:
    for name, versions in registry.models.items():
        for model in versions.values():
            yield model, model is registry.newest(name)


def _request(model: Model, row: str, *, newest: bool, default: str | None) -> dict[str, Any]:
    """Return the schema of a request for one version."""
    card = model.card
    rows = {"type": "array", "items": {"$ref": _REF + row}, "minItems": 1, "maxItems": MAX_ROWS}
    required = ["features"]
    if card.name != default:
        required.append("model")
    if not newest:
        required.append("version")
    return {
        "type": "object",
        "title": f"{card.name} {card.version}",
        "properties": {
            "model": {"const": card.name},
            "version": {"const": card.version},
            "features": {"anyOf": [{"$ref": _REF + row}, rows]},
        },
        "required": required,
        "additionalProperties": False,
    }
