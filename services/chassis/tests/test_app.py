"""`create_app` as a service sees it: one application with every part put together."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, WebSocket
from pydantic import BaseModel, Field
from starlette.responses import Response

from chassis import ApiVersion, Problem, RuntimeDep, ServiceSettings, create_app
from chassis.http.deadline import current_deadline
from chassis.problems import MEDIA_TYPE, problems
from chassis.runtime import Runtime

router = APIRouter(prefix="/items", tags=["items"])


class Item(BaseModel):
    """Has a rule to break, and a place for anything."""

    name: str
    quantity: int = Field(gt=0, le=1000)
    extra: dict[str, Any] = {}


@router.get("/{item_id}", responses=problems(404))
async def read(item_id: int, q: Annotated[str | None, Query()] = None) -> dict[str, Any]:
    if item_id == 404:
        raise HTTPException(404)
    return {"item_id": item_id, "q": q}


@router.post("", status_code=201)
async def create(item: Item) -> Item:
    return item


@router.post("/form")
async def form(name: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name}


@router.post("/numbers")
async def numbers(numbers: list[int]) -> int:
    return sum(numbers)


@router.delete("/{item_id}", status_code=204)
async def delete(item_id: int) -> None:
    """Delete nothing."""


other = APIRouter()


@other.get("/boom")
async def boom() -> None:
    raise RuntimeError("SELECT secret FROM vault WHERE password='hunter2'")


@other.get("/teapot")
async def teapot() -> None:
    raise Problem(
        418,
        detail="Short and stout.",
        type="urn:slipway:problem:teapot",
        headers={"Retry-After": "5"},
        spout="left",
    )


@other.get("/detail")
async def detail() -> None:
    raise HTTPException(409, detail={"lines": [1, 2]})


@other.get("/empty")
async def empty() -> None:
    raise HTTPException(304)


@other.get("/half")
async def half() -> Response:
    class Broken(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("in the middle")

    return Broken()


@other.get("/runtime")
async def runtime(runtime: RuntimeDep) -> dict[str, Any]:
    deadline = current_deadline()
    assert deadline is not None
    return {
        "service": runtime.settings.service_name,
        "extras": runtime.extras,
        "remaining": deadline.remaining(runtime.clock),
    }


@other.get("/v1-like/{name:path}")
async def echo(name: str) -> dict[str, str]:
    return {"name": name}


def make(**overrides: Any) -> FastAPI:
    settings = ServiceSettings(
        **{"service_name": "demo", "environment": "test", "access_log": False, **overrides}
    )
    return create_app(
        settings,
        title="Demo",
        description="A demonstration.",
        versions=[
            ApiVersion(
                "v1",
                router,
                deprecated=datetime(2026, 1, 1, tzinfo=UTC),
                sunset=datetime(2027, 1, 1, tzinfo=UTC),
                successor="v2",
            ),
            ApiVersion("v2", router),
        ],
        routers=[other],
    )


@pytest.fixture
async def client(app_client: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with app_client(make()) as client:
        yield client


def check_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """Assert the shape that every error has; return it."""
    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["type"]
    assert body["instance"].startswith("/")
    assert body["request_id"] == response.headers["x-request-id"]
    assert len(body["trace_id"]) == 32
    return body


async def test_of_many_validation_errors_the_first_are_named(client: httpx2.AsyncClient) -> None:
    """Else the answer to a megabyte would be many of them."""
    answer = await client.post("/v1/items/numbers", json=[1, *["x"] * 1000])
    assert answer.status_code == 422
    assert [error["loc"][1] for error in answer.json()["errors"]] == list(range(1, 101))


async def test_a_validation_error_names_each_field(client: httpx2.AsyncClient) -> None:
    body = check_problem(await client.post("/v2/items", json={"quantity": 0}), 422)
    assert body["type"] == "urn:slipway:problem:validation"
    assert [(error["loc"], error["type"]) for error in body["errors"]] == [
        (["body", "name"], "missing"),
        (["body", "quantity"], "greater_than"),
    ]
    assert all(error["message"] for error in body["errors"])
    assert body["instance"] == "/v2/items"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/items", {"name": "a"}), ("/v1/items/numbers", [1])]
)
async def test_a_body_that_is_not_sent_as_json_is_told_how(
    client: httpx2.AsyncClient, kind: str | None, path: str, body: Any
) -> None:
    """`curl -d` alone sends a form: what is wrong is the header, not the body."""
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await client.post(path, content=json.dumps(body).encode(), headers=headers)
    [error] = check_problem(answer, 422)["errors"]
    assert error["loc"] == ["body"]
    assert "Content-Type: application/json" in error["message"]


async def test_a_body_that_is_no_object_is_not_told_of_its_header(
    client: httpx2.AsyncClient,
) -> None:
    """Nor is one that is not there: for both the header may be right."""
    for sent in ({"json": "text"}, {}):
        [error] = check_problem(await client.post("/v1/items", **sent), 422)["errors"]
        assert error["loc"] == ["body"]
        assert "Content-Type" not in error["message"]


async def test_malformed_json_is_400(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b'{"name": "a', b"\xff\xfe", b'{"a": \x00}', b'{"n": ' + b"9" * 5000):
        body = check_problem(await client.post("/v2/items", content=content, headers=headers), 400)
        assert "detail" in body


async def test_deeply_nested_json_is_an_error_of_the_client(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    content = b'{"name": "a", "quantity": 1, "extra": {"x": ' + b"[" * 100_000 + b"]" * 100_000
    response = await client.post("/v2/items", content=content + b"}}", headers=headers)
    assert response.status_code in {400, 422}


async def test_http_exceptions_and_unmatched_routes(client: httpx2.AsyncClient) -> None:
    assert check_problem(await client.get("/v2/items/404"), 404)["title"] == "Not Found"
    check_problem(await client.get("/nowhere"), 404)
    wrong = await client.put("/v2/items/1")
    check_problem(wrong, 405)
    assert set(wrong.headers["allow"].split(", ")) <= {"GET", "DELETE"}
    assert check_problem(await client.get("/detail"), 409)["lines"] == [1, 2]


async def test_a_slash_too_many_is_no_redirect(app_client: Any) -> None:
    """Not of a flat route, not by a version's header, and not in FastAPI's own tree."""
    mixed = APIRouter(prefix="/mixed")

    @mixed.get("/{name}")
    async def named(name: str) -> str:
        return name

    @mixed.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    settings = ServiceSettings(service_name="demo", environment="test", access_log=False)
    versions = [ApiVersion("v1", router), ApiVersion("v2", mixed)]
    app = create_app(settings, title="Demo", description="", versions=versions, routers=[other])
    async with app_client(app) as client:
        assert (await client.get("/v2/mixed/x")).json() == "x"
        for path in ("/v1/items/1/", "/v2/mixed/x/", "/runtime/", "/docs/"):
            check_problem(await client.get(path), 404)
        check_problem(await client.get("/mixed/x/", headers={"X-API-Version": "2"}), 404)
        body = {"name": "a", "quantity": 1}
        check_problem(await client.post("/v1/items/", json=body), 404)


async def test_a_problem_keeps_its_type_headers_and_extensions(
    client: httpx2.AsyncClient,
) -> None:
    response = await client.get("/teapot")
    body = check_problem(response, 418)
    assert body["type"] == "urn:slipway:problem:teapot"
    assert body["title"] == "I'm a Teapot"
    assert body["detail"] == "Short and stout."
    assert body["spout"] == "left"
    assert response.headers["retry-after"] == "5"


async def test_an_unhandled_exception_leaks_nothing_and_is_logged(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        body = check_problem(await client.get("/boom"), 500)
    assert set(body) == {"type", "title", "status", "instance", "request_id", "trace_id"}
    [record] = [each for each in caplog.records if "request.failed" in str(each.msg)]
    assert "hunter2" in caplog.text
    assert record.levelname == "ERROR"


async def test_an_answer_that_broke_off_is_not_called_a_success(
    app_client: Any,
) -> None:
    """After the first byte nothing can be mended: the server must cut the connection."""
    async with app_client(make()) as client:
        with pytest.raises(RuntimeError, match="in the middle"):
            await client.get("/half")


async def test_head_and_bodyless_statuses_have_no_body(client: httpx2.AsyncClient) -> None:
    assert (await client.delete("/v2/items/1")).content == b""
    response = await client.get("/empty")
    assert response.status_code == 304
    assert response.content == b""


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a\\u0000b", "quantity": 1}',
        b'{"name": "\\ud800", "quantity": 1}',
        b'{"name": "a", "quantity": 1, "extra": {"\\uDC00": 1}}',
        b'{"name": "a", "quantity": 1, "extra": {"x": [["\\u0000"]]}}',
    ],
)
async def test_text_that_cannot_be_stored_is_422(client: httpx2.AsyncClient, body: bytes) -> None:
    response = await client.post(
        "/v2/items", content=body, headers={"content-type": "application/json"}
    )
    assert check_problem(response, 422)["errors"][0]["type"] == "unusable_text"


async def test_text_that_only_looks_unusable_is_taken(client: httpx2.AsyncClient) -> None:
    """An escaped backslash before u0000, and a proper surrogate pair, are ordinary text."""
    body = b'{"name": "a\\\\u0000 \\ud83d\\ude00", "quantity": 1}'
    response = await client.post(
        "/v2/items", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 201
    assert response.json()["name"] == "a\\u0000 \N{GRINNING FACE}"


async def test_nul_in_urls_and_forms_is_422(client: httpx2.AsyncClient) -> None:
    check_problem(await client.get("/v1-like/a%00b"), 422)
    check_problem(await client.get("/v2/items/1?q=a%00"), 422)
    response = await client.post(
        "/v2/items/form",
        content=b"name=a%00b",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    check_problem(response, 422)
    assert (await client.post("/v2/items/form", data={"name": "a"})).json() == {"name": "a"}


async def test_strange_urls_are_no_server_errors(client: httpx2.AsyncClient) -> None:
    for path in (
        "/v2/items/1?q=%ff%fe",
        "/v1-like/%ff%fe",
        "/v1-like/%ED%A0%80",
        "/v2/items/" + "9" * 5000,
        "/v2/items/" + "9" * 40,
        "/v2/items/1?q=%ED%A0%80",
    ):
        assert (await client.get(path)).status_code < 500


async def test_a_body_over_the_limit_is_413_with_and_without_its_length(app_client: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with app_client(make(max_body_bytes=1000)) as client:
        headers = {"content-type": "application/json"}
        too_large = await client.post("/v2/items", content=b"x" * 1001, headers=headers)
        check_problem(too_large, 413)
        check_problem(await client.post("/v2/items", content=chunks(), headers=headers), 413)
        check_problem(
            await client.post(
                "/v2/items/form",
                content=chunks(),
                headers={"content-type": "application/x-www-form-urlencoded"},
            ),
            413,
        )
        # A handler that never reads the body is no way around the limit.
        check_problem(await client.request("GET", "/boom", content=b"x" * 1001), 500)
        check_problem(await client.request("DELETE", "/v2/items/1", content=b"x" * 1001), 413)
        fits = json.dumps({"name": "a" * 900, "quantity": 1})
        assert (await client.post("/v2/items", content=fits, headers=headers)).status_code == 201


async def test_versions_by_path_and_by_header(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/items/1")).json()["item_id"] == 1
    for value in ("v2", "2", "V2"):
        response = await client.get("/items/1", headers={"X-API-Version": value})
        assert response.status_code == 200
        assert "deprecation" not in response.headers
    # The path wins; a header without meaning for the path is ignored.
    assert (await client.get("/v2/items/1", headers={"X-API-Version": "9"})).status_code == 200
    assert (await client.get("/runtime", headers={"X-API-Version": "9"})).status_code == 200
    check_problem(await client.get("/items/1"), 404)


async def test_an_unknown_version_is_400(client: httpx2.AsyncClient) -> None:
    body = check_problem(await client.get("/v9/items/1"), 400)
    assert body["type"] == "urn:slipway:problem:unknown-version"
    assert body["versions"] == ["v1", "v2"]
    body = check_problem(await client.get("/items/1", headers={"X-API-Version": "v9"}), 400)
    assert body["instance"] == "/items/1"


async def test_a_deprecated_version_says_so_in_every_answer(client: httpx2.AsyncClient) -> None:
    for path, headers in (
        ("/v1/items/1", {}),
        ("/v1/items/404", {}),
        ("/items/1", {"X-API-Version": "1"}),
    ):
        response = await client.get(path, headers=headers)
        assert response.headers["deprecation"] == "@1767225600"
        assert response.headers["sunset"] == "Fri, 01 Jan 2027 00:00:00 GMT"
        item = path.rpartition("/")[2]
        assert response.headers["link"] == f'</v2/items/{item}>; rel="successor-version"'
    assert "deprecation" not in (await client.get("/v2/items/1")).headers


async def test_the_budget_of_the_caller_is_the_deadline(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/runtime")).json()
    assert 14 < answer["remaining"] <= 15
    answer = (await client.get("/runtime", headers={"X-Request-Timeout-Ms": "700"})).json()
    assert 0 < answer["remaining"] <= 0.7
    answer = (await client.get("/runtime", headers={"X-Request-Timeout-Ms": "99999999"})).json()
    assert answer["remaining"] <= 15
    answer = (await client.get("/runtime", headers={"X-Request-Timeout-Ms": "soon"})).json()
    assert 14 < answer["remaining"] <= 15
    spent = await client.get("/runtime", headers={"X-Request-Timeout-Ms": "0"})
    assert check_problem(spent, 504)["type"] == "urn:slipway:problem:deadline-exceeded"


async def test_request_ids_are_kept_or_made(client: httpx2.AsyncClient) -> None:
    kept = await client.get("/runtime", headers={"X-Request-ID": "abc-123"})
    assert kept.headers["x-request-id"] == "abc-123"
    for bad in ("", "a b", 'a"b', "x" * 200, "a\tb"):
        made = (await client.get("/runtime", headers={"X-Request-ID": bad})).headers
        assert len(made["x-request-id"]) == 36


async def test_setup_and_workers_live_with_the_lifespan(app_client: Any) -> None:
    """The service's own resources open before the first request and close after the last."""
    events: list[str] = []

    @asynccontextmanager
    async def setup(runtime: Runtime) -> AsyncIterator[None]:
        runtime.extras["opened"] = True
        events.append("opened")
        yield
        events.append("closed")

    async def loop(runtime: Runtime) -> None:
        events.append("worker")
        try:
            await runtime.clock.sleep(60)
        finally:
            events.append("worker ended")

    app = create_app(
        ServiceSettings(service_name="demo", environment="test", access_log=False),
        title="Demo",
        description="",
        routers=[other],
        setup=setup,
        workers={"loop": loop},
    )
    async with app_client(app) as client:
        assert (await client.get("/runtime")).json()["extras"] == {"opened": True}
    assert events == ["opened", "worker", "worker ended", "closed"]


async def test_a_failing_setup_stops_the_start(app_client: Any) -> None:
    @asynccontextmanager
    async def setup(runtime: Runtime) -> AsyncIterator[None]:
        raise RuntimeError("no model file")
        yield

    app = create_app(
        ServiceSettings(service_name="demo", environment="test"),
        title="Demo",
        description="",
        setup=setup,
    )
    with pytest.raises(RuntimeError, match="no model file"):
        async with app_client(app):
            pass


async def test_middleware_of_the_service_is_honoured(app_client: Any) -> None:
    """The short way must not pass by what a service adds to its application."""

    class Marker:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def marked(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-marked", b"1")]
                await send(message)

            await self.app(scope, receive, marked)

    app = make()
    app.add_middleware(Marker)
    async with app_client(app) as client:
        assert (await client.get("/v2/items/1")).headers["x-marked"] == "1"


async def test_dependencies_with_cleanup_run_around_the_response(app_client: Any) -> None:
    seen: list[str] = []

    async def resource() -> AsyncIterator[str]:
        seen.append("open")
        yield "x"
        seen.append("closed")

    extra = APIRouter()

    @extra.get("/with")
    async def with_resource(value: Annotated[str, Depends(resource)]) -> str:
        return value

    settings = ServiceSettings(service_name="demo", environment="test", access_log=False)
    app = create_app(settings, title="Demo", description="", routers=[extra])
    async with app_client(app) as client:
        assert (await client.get("/with")).json() == "x"
    assert seen == ["open", "closed"]


async def test_docs_are_served_and_can_be_switched_off(app_client: Any) -> None:
    async with app_client(make()) as client:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
    async with app_client(make(docs_enabled=False)) as client:
        for path in ("/docs", "/redoc", "/openapi.json"):
            check_problem(await client.get(path), 404)
