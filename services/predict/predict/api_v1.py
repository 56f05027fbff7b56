"""Version 1 of the API: rows by name, predictions with an interval or probabilities."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from chassis.problems import Problem, problems
from chassis.security import requires
from predict.schemas import (
    ChangesShown,
    ModelShown,
    ModelsShown,
    Predictions,
    PredictRequest,
)
from predict.service import RegistryDep, compute, find, invalid, registry_of
from predict.sources import SourceError

MAY_PREDICT = requires("predict")

router = APIRouter(tags=["predict"])
internal = APIRouter(prefix="/internal", tags=["internal"])


@router.post(
    "/predict",
    summary="Predict",
    response_model=Predictions,
    response_model_exclude_none=True,
    responses=problems(400, 401, 403, 404, 413, 422, 503, 504),
    dependencies=[MAY_PREDICT],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": PredictRequest.model_json_schema()}},
        }
    },
)
async def predict(request: Request) -> Response:
    """Predict one row or up to 1000.

    Regression gives a `value`, with an `interval` if the model has one; classification a `label`
    and the `probabilities`. A 422 answer holds the schema of the model's rows, and what is wrong
    with the first row that does not fit.
    """
    # Read by hand: which schema a body must fit depends on the model that it names.
    try:
        asked = PredictRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error) from None
    model = find(registry_of(request), asked.model, asked.version)
    try:
        rows = model.rows.read(asked.features)
    except ValidationError as error:
        model.metrics.answered("invalid", 1)
        problem = invalid(error, "features")
        problem.extensions["schema"] = model.rows.schema
        raise problem from None
    outputs = await compute(model, rows)
    return Response(
        to_json(
            {
                "model": model.card.name,
                "version": model.card.version,
                "predictions": model.shown(outputs),
            }
        ),
        media_type="application/json",
    )


@router.get(
    "/models", summary="List models", responses=problems(401, 403), dependencies=[MAY_PREDICT]
)
async def list_models(registry: RegistryDep) -> ModelsShown:
    """Tell every version that serves, what its rows look like, and what is in quarantine."""
    return ModelsShown.of(registry)


@router.get(
    "/models/{name}",
    summary="Read a model",
    responses=problems(401, 403, 404, 503),
    dependencies=[MAY_PREDICT],
)
async def read_model(name: str, registry: RegistryDep, version: str | None = None) -> ModelShown:
    """Tell of one model: its newest version, or the one that is asked for."""
    model = find(registry, name, version)
    return ModelShown.of(model, newest=model is registry.newest(name))


@internal.post(
    "/models/look",
    summary="Look for models now",
    responses=problems(401, 403, 503),
    dependencies=[requires("models:write")],
)
async def look_for_models(registry: RegistryDep) -> ChangesShown:
    """Load what is new or changed at once, in this process, instead of within seconds."""
    try:
        changes = await registry.look(eager=True)
    except SourceError as error:
        raise Problem(503, detail=f"The models cannot be read: {error}.") from None
    return ChangesShown(loaded=changes.loaded, refused=changes.refused, removed=changes.removed)
