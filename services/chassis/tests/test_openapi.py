"""The OpenAPI document tells every problem, in the one shape."""

from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from chassis import ApiVersion, ServiceSettings, create_app
from chassis.problems import MEDIA_TYPE, problems
from chassis.security.dependencies import requires

router = APIRouter(prefix="/things")


class Thing(BaseModel):
    """A body and an answer."""

    name: str


@router.get("/{thing_id}", responses=problems(404))
async def read(thing_id: int) -> Thing:
    return Thing(name=str(thing_id))


@router.get("")
async def listing() -> list[Thing]:
    return []


@router.post("", status_code=201, dependencies=[requires("things:write")])
async def create(thing: Thing) -> Thing:
    return thing


def document() -> dict[str, Any]:
    app: FastAPI = create_app(
        ServiceSettings(service_name="demo", environment="test", version="1.2.3"),
        title="Demo",
        description="Things.",
        versions=[ApiVersion("v1", router)],
    )
    return app.openapi()


def errors(operation: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {
        int(status): response
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }


def test_every_error_is_a_problem() -> None:
    found = document()
    for path in found["paths"].values():
        for operation in path.values():
            for response in errors(operation).values():
                assert list(response["content"]) == [MEDIA_TYPE]
                schema = response["content"][MEDIA_TYPE]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDetails"}
                assert response["description"]
    assert "HTTPValidationError" not in found["components"]["schemas"]
    assert "ValidationError" not in found["components"]["schemas"]
    problem = found["components"]["schemas"]["ProblemDetails"]
    assert {"type", "title", "status", "detail", "instance", "trace_id", "errors"} <= set(
        problem["properties"]
    )
    assert "FieldError" in found["components"]["schemas"]


def test_each_operation_lists_what_it_can_answer() -> None:
    paths = document()["paths"]
    read_errors = set(errors(paths["/v1/things/{thing_id}"]["get"]))
    assert read_errors == {404, 422, 500, 503, 504}
    assert set(errors(paths["/v1/things"]["get"])) == {422, 500, 503, 504}
    assert set(errors(paths["/v1/things"]["post"])) == {400, 401, 403, 413, 422, 500, 503, 504}


def test_probes_and_docs_are_no_part_of_the_api() -> None:
    found = document()
    assert set(found["paths"]) == {"/v1/things", "/v1/things/{thing_id}"}
    assert found["info"] == {"title": "Demo", "description": "Things.", "version": "1.2.3"}
