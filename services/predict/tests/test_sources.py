"""Models from an index at a URL: read within bounds, held to their checksums, never half."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chassis.settings import SettingsError


class Shelf:
    """A web server over the folder of models, which can be made to misbehave."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.asked: list[str] = []
        self.broken: dict[str, int] = {}
        self.listed: Any = {"models": ["sum/1"]}

    def app(self) -> Starlette:
        """The ASGI application."""

        async def answer(request: Request) -> Response:
            path = request.path_params["path"]
            self.asked.append(path)
            if path in self.broken:
                return Response(b"", self.broken[path])
            if path == "index.json":
                return Response(json.dumps(self.listed))
            file = self.world.root / path
            return Response(file.read_bytes()) if file.is_file() else Response(b"", 404)

        return Starlette(routes=[Route("/{path:path}", answer)])


@pytest.fixture
async def shelf(world: Any, serve_app: Any) -> AsyncIterator[tuple[Shelf, str]]:
    """The server and the URL of its index."""
    world.write()
    shelf = Shelf(world)
    async with serve_app(shelf.app()) as url:
        yield shelf, f"{url}/index.json"


@asynccontextmanager
async def serving(world: Any, url: str, **settings: Any) -> AsyncIterator[Any]:
    async with world.client(models=url, **settings) as client:
        yield client


async def refused(client: Any) -> dict[str, str]:
    listed = (await client.get("/v1/models")).json()
    return {each["where"]: each["reason"] for each in listed["quarantine"]}


async def test_models_come_from_an_index_and_files_only_when_they_changed(
    world: Any, shelf: tuple[Shelf, str], helpers: Any
) -> None:
    """Index and cards at each look; a model's file once, and again for a new card."""
    shop, url = shelf
    async with serving(world, url) as client:
        assert await helpers.value(client, 1) == 2
        assert shop.asked == ["index.json", "sum/1/model.json", "sum/1/model.onnx"]
        shop.asked.clear()
        await helpers.look(client)
        assert shop.asked == ["index.json", "sum/1/model.json"]
        world.write(version="2", bias=5)
        shop.listed["models"].append("sum/2")
        assert (await helpers.look(client))["loaded"] == ["sum/2"]
        assert await helpers.value(client, 1) == 7
        shop.listed["models"].remove("sum/2")
        assert (await helpers.look(client))["removed"] == ["sum/2"]
        assert await helpers.value(client, 1) == 2


async def test_what_is_wrong_there_changes_nothing_here(
    world: Any, shelf: tuple[Shelf, str], helpers: Any
) -> None:
    """A bad index is told and counted; a bad model is refused; the old ones serve on."""
    shop, url = shelf
    async with serving(world, url, max_model_bytes=10_000, max_models=5) as client:
        for listed in ({"models": "sum/1"}, [], {"models": [1]}):
            shop.listed = listed
            assert (await client.post("/internal/models/look")).status_code == 503
        shop.listed = {"models": ["sum/1"]}
        shop.broken["index.json"] = 500
        assert (await client.post("/internal/models/look")).status_code == 503
        shop.broken = {"sum/1/model.json": 500}
        await helpers.look(client)
        assert await refused(client) == {"sum/1": "unreadable"}
        assert await helpers.value(client, 1) == 2
        shop.broken = {}
        world.write("large", bias=1)
        (world.root / "large" / "1" / "model.onnx").write_bytes(b"x" * 20_000)
        world.write("cut")
        file = world.root / "cut" / "1" / "model.onnx"
        file.write_bytes(file.read_bytes()[:-5])
        shop.listed = {
            "models": ["sum/1", "large/1", "cut/1", "gone/1", "../../etc/passwd", "a/b.pkl", "z/1"]
        }
        await helpers.look(client)
        assert await refused(client) == {
            "../../etc/passwd": "name",
            "a/b.pkl": "pickle",
            "cut/1": "checksum",
            "gone/1": "missing",
            "large/1": "size",
            "z/1": "limit",
        }
        assert await helpers.value(client, 1) == 2
        assert not any("passwd" in path for path in shop.asked)


async def test_a_file_that_could_not_be_fetched_is_tried_again(
    world: Any, shelf: tuple[Shelf, str], helpers: Any
) -> None:
    """A fault of the place passes without a change of the file."""
    shop, url = shelf
    async with serving(world, url) as client:
        world.write(bias=10)
        shop.broken = {"sum/1/model.onnx": 503}
        assert (await helpers.look(client))["refused"] == ["sum/1"]
        assert await helpers.value(client, 1) == 2
        shop.broken = {}
        assert (await helpers.look(client))["loaded"] == ["sum/1"]
        assert await helpers.value(client, 1) == 12


async def test_an_index_that_hangs_or_is_away_does_not_hold_the_service(
    world: Any, shelf: tuple[Shelf, str], helpers: Any, faulty_peer: Any
) -> None:
    """Within `fetch_seconds`; at the start it is one line about the setting."""
    faulty_peer.hang()
    hanging = f"{faulty_peer.url}/index.json"
    async with asyncio.timeout(30):
        with pytest.raises(SettingsError, match=r"^PREDICT_MODELS: the index: index.json: Timeout"):
            async with serving(world, hanging, fetch_seconds=0.2):
                pass
    faulty_peer.refuse()
    with pytest.raises(SettingsError, match=r"^PREDICT_MODELS: the index: "):
        async with serving(world, hanging):
            pass


async def test_a_file_url_names_an_index_too(world: Any, helpers: Any) -> None:
    """The same layout on a disk."""
    world.write(bias=3)
    index = world.root / "index.json"
    index.write_text(json.dumps({"models": ["sum/1"]}))
    async with serving(world, index.as_uri()) as client:
        assert await helpers.value(client, 1) == 5
