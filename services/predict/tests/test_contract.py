"""The OpenAPI document against what the service does: generated requests, and its examples."""

from typing import Any

import anyio

from chassis.testing.contract import fuzz_contract
from predict.main import create_app


async def test_the_document_tells_the_truth(samples: Any) -> None:
    """Generated requests: no 5xx, and no answer that the document does not declare."""
    known = {"name": "wine-cultivar", "version": "1"}

    def fuzz() -> dict[str, set[int]]:
        app = create_app(samples.settings())
        return fuzz_contract(app, headers=samples.headers, known=known, examples=8)

    seen = await anyio.to_thread.run_sync(fuzz)
    assert len(seen) == 13
    # The requests went deep enough to mean something.
    assert {200, 422} <= seen["POST /v1/predict"]
    assert {200, 404} <= seen["GET /v2/models/{name}/versions/{version}"]
    assert 422 in seen["POST /v2/models/{name}/infer"]
    assert seen["GET /v2/health/ready"] == {200}


async def test_the_document_shows_the_models_that_serve(world: Any, helpers: Any) -> None:
    """Rows of each version, with an example that works; anew when a model comes or goes."""
    world.write(features=[{"name": "a", "max": 5, "unit": "m"}, {"name": "b", "default": 0.5}])
    async with world.client() as client:

        async def shapes() -> dict[str, Any]:
            document = (await client.get("/openapi.json")).json()
            body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
            [media] = body.values()
            for example in media["examples"].values():
                answer = await client.post("/v1/predict", json=example["value"])
                assert answer.status_code == 200, answer.text
            found: dict[str, Any] = {
                each["title"]: document["components"]["schemas"][
                    each["properties"]["features"]["anyOf"][0]["$ref"].rpartition("/")[2]
                ]
                for each in media["schema"]["anyOf"]
            }
            return found

        first = await shapes()
        assert list(first) == ["sum 1"]
        assert first["sum 1"]["properties"]["a"]["maximum"] == 5
        assert first["sum 1"]["properties"]["a"]["x-unit"] == "m"
        assert first["sum 1"]["properties"]["b"]["default"] == 0.5
        assert first["sum 1"]["required"] == ["a"]
        world.write(version="2")
        await helpers.look(client)
        assert list(await shapes()) == ["sum 1", "sum 2"]


def test_the_document_exists_without_models(world: Any) -> None:
    """`make openapi` starts nothing: it shows the general shape."""
    document = create_app(world.settings()).openapi()
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
    assert "features" in document["components"]["schemas"]["PredictRequest"]["properties"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
