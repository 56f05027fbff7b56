"""Models from an index at a URL: read within bounds, held to their checksums, never half."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chassis.settings import SettingsError
from predict import sources


class Shelf:
    """A web server over the folder of models, which can be made to misbehave."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.asked: list[str] = []
        self.broken: dict[str, int] = {}
        self.listed: Any = {"models": ["sum/1"]}
        self.before: Callable[[str], Awaitable[None]] | None = None

    def app(self) -> Starlette:
        """The ASGI application."""

        async def answer(request: Request) -> Response:
            path = request.path_params["path"]
            self.asked.append(path)
            if self.before is not None:
                await self.before(path)
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


@pytest.mark.parametrize("reason", ["missing", "checksum"])
async def test_a_card_may_come_before_its_file(
    world: Any, shelf: tuple[Shelf, str], helpers: Any, reason: str
) -> None:
    """The file is fetched again though the card stays the same, less and less often."""
    shop, url = shelf
    file = "sum/1/model.onnx"
    async with serving(world, url, rescan_seconds=1000) as client:
        registry = (
            client._transport.app.__closure__[0]
            .cell_contents.state.runtime.extras["predictor"]
            .registry
        )
        before = (world.root / file).read_bytes()
        world.write(bias=10)
        new = (world.root / file).read_bytes()
        (world.root / file).write_bytes(before)
        if reason == "missing":
            (world.root / file).unlink()
        fetched = []
        for second in range(100):
            shop.asked.clear()
            await registry.look()
            assert await refused(client) == {"sum/1": reason}
            if file in shop.asked:
                fetched.append(second)
            world.clock.advance(1)
        assert fetched == [0, 10, 30, 70]
        shop.asked.clear()
        await helpers.look(client)
        assert file in shop.asked, "who asks for a look need not wait"
        (world.root / file).write_bytes(new)
        world.clock.advance(300)
        assert (await registry.look()).loaded == ["sum/1"]
        assert await helpers.value(client, 1) == 12
        assert await refused(client) == {}


async def test_what_could_not_be_read_is_removed_when_it_is_gone(
    world: Any, shelf: tuple[Shelf, str], helpers: Any
) -> None:
    """A version serves, its update cannot be read, and then the index has it no more."""
    shop, url = shelf
    world.write("other")
    shop.listed["models"].append("other/1")
    async with serving(world, url) as client:
        world.write(bias=10)
        shop.broken = {"sum/1/model.onnx": 503}
        assert (await helpers.look(client))["refused"] == ["sum/1"]
        assert await helpers.value(client, 1) == 2
        shop.listed = {"models": ["other/1"]}
        assert (await helpers.look(client))["removed"] == ["sum/1"]
        assert [each["name"] for each in (await client.get("/v1/models")).json()["models"]] == [
            "other"
        ]


async def test_a_reason_is_told_again_after_an_outage(
    world: Any, shelf: tuple[Shelf, str], helpers: Any
) -> None:
    """What is refused, and then cannot be read for a while, is not forgotten."""
    shop, url = shelf
    world.write("bad", weights=(float("inf"), 1))
    shop.listed["models"].append("bad/1")
    async with serving(world, url) as client:
        assert await refused(client) == {"bad/1": "check"}
        shop.broken = {"bad/1/model.json": 503}
        for _ in range(2):
            await helpers.look(client)
            assert await refused(client) == {"bad/1": "unreadable"}
        shop.broken = {}
        await helpers.look(client)
        assert await refused(client) == {"bad/1": "check"}


async def test_cards_are_read_a_few_at_once_and_files_by_the_threads_that_load(
    world: Any, shelf: tuple[Shelf, str], helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one client: another for each file would load the certificates each time."""
    shop, url = shelf
    made: list[Any] = []
    real = sources.httpx2.AsyncClient

    def make(**options: Any) -> Any:
        client = real(**options)
        if options == {"trust_env": False, "follow_redirects": False}:  # those of a source
            made.append(client)
        return client

    monkeypatch.setattr(sources.httpx2, "AsyncClient", make)
    open_now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    several = asyncio.Event()

    async def before(path: str) -> None:
        kind = path.rpartition("/")[2]
        open_now[kind] += 1
        most[kind] = max(most[kind], open_now[kind])
        if open_now["model.json"] > 1:
            several.set()
        if kind == "model.json":
            await asyncio.wait_for(several.wait(), 60)  # one alone would wait in vain
        else:
            await asyncio.sleep(0.01)
        open_now[kind] -= 1

    async with serving(world, url) as client:
        shop.listed = {"models": ["sum/1", *(f"m{number}/1" for number in range(30))]}
        for number in range(30):
            world.write(f"m{number}")
        shop.before = before
        assert len((await helpers.look(client))["loaded"]) == 30
    assert 1 < most["model.json"] <= 8
    assert most["model.onnx"] <= 2
    assert [each.is_closed for each in made] == [True]


async def test_a_host_that_is_slow_is_not_asked_for_every_card(
    world: Any, shelf: tuple[Shelf, str]
) -> None:
    """Each would cost the longest time of a file, and one look all of them."""
    shop, url = shelf
    free = asyncio.Event()

    async def before(path: str) -> None:
        if path != "index.json":
            await free.wait()

    shop.before = before
    shop.listed = {"models": [f"m{number}/1" for number in range(60)]}
    source = sources.source_of(world.settings(models=url, fetch_seconds=0.5))
    try:
        async with asyncio.timeout(60):
            while True:
                shop.asked.clear()
                try:
                    found = await source.look()
                    break
                except sources.SourceError:  # the machine stood still: the index was late too
                    continue
    finally:
        free.set()
        await source.close()
    assert {each.refused.reason for each in found if each.refused} == {"unreadable"}
    assert len(found) == 60
    assert len([path for path in shop.asked if path != "index.json"]) <= 16


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
