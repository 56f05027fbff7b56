"""Route templates and flat routers."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Response, WebSocket
from prometheus_client import CollectorRegistry

from chassis import ServiceSettings, create_app
from chassis.routes import include_flat

inner = APIRouter(prefix="/{item_id}/parts", tags=["parts"])


@inner.get("/{part_id}", summary="One part")
async def part(item_id: int, part_id: int) -> dict[str, int]:
    return {"item": item_id, "part": part_id}


def header(response: Response) -> None:
    response.headers["x-from-router"] = "1"


outer = APIRouter(prefix="/items", dependencies=[Depends(header)])


@outer.get("/{item_id}", response_model_exclude_none=True)
async def item(item_id: int) -> dict[str, int]:
    return {"item": item_id}


outer.include_router(inner)


async def test_nested_routers_are_laid_out_flat_with_all_that_they_inherit(
    app_client: Any,
) -> None:
    app = FastAPI()
    include_flat(app, outer, prefix="/v1")
    paths = [route.path for route in app.router.routes if "/v1" in getattr(route, "path", "")]
    assert paths == ["/v1/items/{item_id}", "/v1/items/{item_id}/parts/{part_id}"]
    document = app.openapi()
    operation = document["paths"]["/v1/items/{item_id}/parts/{part_id}"]["get"]
    assert operation["tags"] == ["parts"]
    assert operation["summary"] == "One part"
    tree = FastAPI()
    tree.include_router(outer, prefix="/v1")
    assert document == tree.openapi()
    async with app_client(app) as client:
        response = await client.get("/v1/items/1/parts/2")
        assert response.json() == {"item": 1, "part": 2}
        assert response.headers["x-from-router"] == "1"


async def test_a_router_with_other_routes_keeps_working(app_client: Any) -> None:
    """WebSockets and form limits need FastAPI's own tree."""
    mixed = APIRouter(prefix="/mixed")

    @mixed.get("/{name}")
    async def named(name: str) -> str:
        return name

    @mixed.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    app = FastAPI()
    include_flat(app, mixed)
    async with app_client(app) as client:
        assert (await client.get("/mixed/x")).json() == "x"


async def counted(app: FastAPI) -> set[tuple[str, str, str]]:
    """Return (method, route, status) of every series of `app`."""
    registry: CollectorRegistry = app.state.runtime.registry
    families = {family.name: family for family in registry.collect()}
    return {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"])
        for sample in families["http_requests"].samples
        if sample.name == "http_requests_total"
    }


async def test_labels_are_full_templates_and_bounded(app_client: Any) -> None:
    """Flat or in a tree, mounted or unknown: a label is never what a client made up."""
    later = APIRouter(prefix="/later")

    @later.get("/{name}")
    async def named(name: str) -> str:
        return name

    app = create_app(
        ServiceSettings(service_name="demo", environment="test", access_log=False),
        title="Demo",
        description="",
        routers=[outer],
    )
    app.include_router(later, prefix="/tree")
    async with app_client(app) as client:
        await client.get("/items/5/parts/6")
        await client.get("/tree/later/x")
        await client.get("/tree/later")
        await client.get("/nowhere/1")
        await client.get("/nowhere/2")
        await client.get("/docs")
        await client.request("BREW", "/items/1")
        await client.post("/items/1")
        await client.get("/livez")
        await client.get("/metrics")
    assert await counted(app) == {
        ("GET", "/items/{item_id}/parts/{part_id}", "200"),
        ("GET", "/tree/later/{name}", "200"),
        ("GET", "_unmatched", "404"),
        ("GET", "/docs", "200"),
        ("_OTHER", "/items/{item_id}", "405"),
        ("POST", "/items/{item_id}", "405"),
    }
