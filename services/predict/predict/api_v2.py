"""Version 2 of the API is the Open Inference Protocol v2, REST, in JSON.

Errors are problems (RFC 9457) with a member `error`, which is all that the protocol asks of them;
`ErrorMember` sees to that. The server's metadata and health may be read by everybody.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import RuntimeDep
from chassis.problems import MEDIA_TYPE, Problem, problems
from chassis.security import requires
from predict.model import Model
from predict.registry import Registry
from predict.service import RegistryDep, compute, find, invalid, registry_of
from predict.tensors import (
    InferRequest,
    InferResponse,
    TensorMetadata,
    check_outputs,
    inputs_of,
    no_binary,
    outputs_of,
    read,
    write,
)

MAY_PREDICT = requires("predict")
PREFIX = "/v2"

_BINARY_HEADER = "Inference-Header-Content-Length"

router = APIRouter(tags=["open inference protocol"])


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str] = Field(description="None: tensors are JSON.")


class Live(BaseModel):
    """The server answers."""

    live: bool


class Ready(BaseModel):
    """Models serve."""

    ready: bool


class ModelReady(BaseModel):
    """A model serves."""

    name: str
    ready: bool


class ModelMetadata(BaseModel):
    """A model, its versions and tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


@router.get("", summary="Server metadata")
async def server_metadata(runtime: RuntimeDep) -> ServerMetadata:
    """Tell what this server is."""
    return ServerMetadata(name="slipway-predict", version=runtime.settings.version, extensions=[])


@router.get("/health/live", summary="Server live")
async def server_live() -> Live:
    """Say that the server answers."""
    return Live(live=True)


@router.get("/health/ready", summary="Server ready", responses=problems(503))
async def server_ready(registry: RegistryDep) -> Ready:
    """Say that there are models; 503 when the last one was taken away."""
    if not registry.models:
        raise Problem(503, detail="No model serves.", headers={"Retry-After": "10"})
    return Ready(ready=True)


_SHOWS: dict[str, Any] = {"responses": problems(401, 403, 404, 503), "dependencies": [MAY_PREDICT]}
_INFERS: dict[str, Any] = {
    "response_model": InferResponse,
    "responses": problems(400, 401, 403, 404, 413, 415, 422, 503, 504),
    "dependencies": [MAY_PREDICT],
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}
            },
        }
    },
}


@router.get("/models/{name}", summary="Model metadata", **_SHOWS)
async def model_metadata(name: str, registry: RegistryDep) -> ModelMetadata:
    """Tell the tensors of a model's newest version, and which versions there are."""
    return _metadata(registry, find(registry, name, None))


@router.get("/models/{name}/versions/{version}", summary="Version metadata", **_SHOWS)
async def version_metadata(name: str, version: str, registry: RegistryDep) -> ModelMetadata:
    """Tell the tensors of one version."""
    return _metadata(registry, find(registry, name, version))


@router.get("/models/{name}/ready", summary="Model ready", **_SHOWS)
async def model_ready(name: str, registry: RegistryDep) -> ModelReady:
    """Say that a model serves; 503 while it is in quarantine, 404 when there is none."""
    return ModelReady(name=find(registry, name, None).card.name, ready=True)


@router.get("/models/{name}/versions/{version}/ready", summary="Version ready", **_SHOWS)
async def version_ready(name: str, version: str, registry: RegistryDep) -> ModelReady:
    """Say that one version serves."""
    return ModelReady(name=find(registry, name, version).card.name, ready=True)


@router.post("/models/{name}/infer", summary="Infer", **_INFERS)
async def infer(name: str, request: Request) -> Response:
    """Predict from tensors by the newest version; 1 to 1000 rows, the same in all tensors."""
    return await _infer(find(registry_of(request), name, None), request)


@router.post("/models/{name}/versions/{version}/infer", summary="Infer by version", **_INFERS)
async def infer_by_version(name: str, version: str, request: Request) -> Response:
    """Predict from tensors by one version."""
    return await _infer(find(registry_of(request), name, version), request)


def _metadata(registry: Registry, model: Model) -> ModelMetadata:
    card = model.card
    properties = {"version": card.version, "task": card.task, "sha256": card.sha256}
    if card.classes:
        properties["classes"] = ",".join(card.classes)
    if card.interval:
        properties["interval"] = f"{card.interval.method} {card.interval.level:g}"
    return ModelMetadata(
        name=card.name,
        versions=list(registry.models.get(card.name, {})),
        platform=model.platform,
        inputs=inputs_of(model),
        outputs=outputs_of(model),
        properties=properties,
    )


async def _infer(model: Model, request: Request) -> Response:
    try:
        if _BINARY_HEADER in request.headers:
            raise no_binary()
        asked = InferRequest.model_validate_json(await request.body())
        names = check_outputs(model, asked.outputs)
        rows = read(model.rows, asked.inputs)
    except ValidationError as error:
        model.metrics.answered("invalid", 1)
        raise invalid(error) from None
    except Problem:
        model.metrics.answered("invalid", 1)
        raise
    outputs = await compute(model, rows)
    answer: dict[str, Any] = {
        "model_name": model.card.name,
        "model_version": model.card.version,
        **({} if asked.id is None else {"id": asked.id}),
        "outputs": write(model, outputs, names),
    }
    return Response(to_json(answer), media_type="application/json")


class ErrorMember:
    """Pure ASGI: gives every problem below `/v2` the member `error`, for the protocol's clients.

    Around everything, because some problems come from before the routes or from after them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def send_with_error(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_our_problem(scope, message):
                held = message  # its length is not known yet
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await send_problem(held, body)

        async def send_problem(start: Message, text: bytes) -> None:
            problem = json.loads(text)
            problem["error"] = problem.get("detail") or problem["title"]
            text = json.dumps(problem).encode("ascii")
            headers = [each for each in start["headers"] if each[0].lower() != b"content-length"]
            headers.append((b"content-length", str(len(text)).encode("ascii")))
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": text})

        await self._app(scope, receive, send_with_error)


def _is_our_problem(scope: Scope, start: Message) -> bool:
    path = scope["path"]  # by now that of the version which serves, if a header chose it
    if path != PREFIX and not path.startswith(PREFIX + "/"):
        return False
    return scope["method"] != "HEAD" and any(
        name.lower() == b"content-type" and value == MEDIA_TYPE.encode("ascii")
        for name, value in start.get("headers", ())
    )
