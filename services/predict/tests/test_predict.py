"""`POST /v1/predict` and `GET /v1/models`: rows by name, defaults, intervals, probabilities."""

import asyncio
import json
import threading
from typing import Any

import pytest

DIABETES = {"age": 59, "bmi": 32.1, "blood_pressure": 101.0}


async def test_a_regression_gives_a_value_with_its_interval(samples: Any) -> None:
    """Of the level that the card says, and as wide."""
    async with samples.client(default_model="diabetes-progression") as client:
        answer = await client.post("/v1/predict", json={"features": DIABETES})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["model"], body["version"]) == ("diabetes-progression", "1")
        [found] = body["predictions"]
        shown = (await client.get("/v1/models/diabetes-progression")).json()
    interval = found["interval"]
    assert 100 < found["value"] < 300
    assert interval["level"] == shown["interval"]["level"] == 0.9
    half_width = shown["interval"]["half_width"]
    assert found["value"] - interval["lower"] == pytest.approx(half_width)
    assert interval["upper"] - found["value"] == pytest.approx(half_width)
    assert "label" not in found


async def test_a_classification_gives_a_label_and_probabilities(samples: Any) -> None:
    """They add up to one, and the label has the most."""
    rows = [{"proline": 1500, "alcohol": 14.1}, {"proline": 400, "color_intensity": 2.0}]
    async with samples.client() as client:
        body = {"model": "wine-cultivar", "features": rows}
        answer = (await client.post("/v1/predict", json=body)).json()
    assert [each["label"] for each in answer["predictions"]] == ["cultivar-1", "cultivar-2"]
    for each in answer["predictions"]:
        assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert each["label"] == max(each["probabilities"], key=each["probabilities"].get)


async def test_rows_keep_their_order_and_defaults_fill_in(world: Any, helpers: Any) -> None:
    """One row, or a thousand; a model's answer is that of its weights."""
    world.write(weights=(2, 10))
    async with world.client() as client:
        assert await helpers.value(client, 1.5) == pytest.approx(13.0)
        rows = [{"a": n, "b": n % 7} for n in range(1000)]
        answer = await client.post("/v1/predict", json={"features": rows})
        values = [each["value"] for each in answer.json()["predictions"]]
        assert values == [2.0 * n + 10 * (n % 7) for n in range(1000)]
        assert "interval" not in answer.json()["predictions"][0]
        for wrong in ([*rows, {"a": 1}], []):
            refused = await client.post("/v1/predict", json={"features": wrong})
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["loc"] == ["body", "features"]


BAD_ROWS: dict[str, tuple[Any, list[Any]]] = {
    "another type": ({"a": "1"}, ["a"]),
    "a truth value": ({"a": True}, ["a"]),
    "nothing": ({"a": None}, ["a"]),
    "a missing feature": ({"b": 1}, ["a"]),
    "an unknown feature": ({"a": 1, "c": 1}, ["c"]),
    "too much": ({"a": 1, "b": 101}, ["b"]),
    "no number": ('{"features": {"a": NaN}}', ["a"]),
    "no finite number": ('{"features": {"a": 1e999}}', ["a"]),
    "one bad row of two": ([{"a": 1}, {"a": []}], [1, "a"]),
    "an integer of 401 digits": ({"a": 10**400}, ["a"]),
    "a row that is none": ([{"a": 1}, 2], [1]),
}


@pytest.mark.parametrize("name", BAD_ROWS)
async def test_what_does_not_fit_is_422_with_the_schema(
    world: Any, helpers: Any, name: str
) -> None:
    """The answer says where, and what a row looks like; the model was not asked."""
    world.write()
    features, where = BAD_ROWS[name]
    text = features if isinstance(features, str) else json.dumps({"features": features})
    async with world.client() as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/predict", content=text, headers=headers)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert problem["errors"][0]["loc"] == ["body", "features", *where]
        assert problem["schema"]["required"] == ["a"]
        assert problem["schema"]["properties"]["b"]["maximum"] == 100
        counted = 'predictions_total{model="sum",outcome="invalid",version="1"}'
        assert await helpers.metric(client, counted) == 1
        assert await helpers.metric(client, counted.replace("invalid", "ok")) == 0


async def test_many_errors_are_not_all_told(world: Any) -> None:
    """Those of the first row that does not fit; and more than hundreds are only counted."""
    world.write()
    async with world.client() as client:
        rows: list[Any] = [{"a": 1}, *[{"a": "x", "b": "y"}] * 999]
        answer = await client.post("/v1/predict", json={"features": rows})
        told = [each["loc"] for each in answer.json()["errors"]]
        assert told == [["body", "features", 1, "a"], ["body", "features", 1, "b"]]
        unknown = dict.fromkeys(map(str, range(300)))
        answer = await client.post("/v1/predict", json={"features": {"a": 1, **unknown}})
        assert len(answer.json()["errors"]) == 100
        unknown = dict.fromkeys(map(str, range(20_000)))
        for body, where in (
            ({"features": {"a": 1, **unknown}}, ["body", "features"]),
            ({"features": {"a": 1}, **unknown}, ["body"]),
        ):
            answer = await client.post("/v1/predict", json=body)
            assert answer.status_code == 422
            [one] = answer.json()["errors"]
            assert (one["loc"], one["type"]) == (where, "too_many")
            assert one["message"] == "20000 things do not fit; too many to name them"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 400), ("{", 400), ("[]", 422), ('{"features": 1}', 422), ("{}", 422),
        ('{"features": {"a": 1}, "extra": 1}', 422), ('{"features": {"a": 1}, "model": 1}', 422),
        ("[" * 100_000, 400), ('{"features": {"a": 1}, "version": "\\ud800"}', 422),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_request(world: Any, text: str, status: int) -> None:
    """Malformed is 400, another shape 422; both are problems."""
    world.write()
    async with world.client() as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/predict", content=text, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_every_type_of_feature_reaches_the_model(world: Any, helpers: Any) -> None:
    """A boolean as 0 or 1, a category by its position, an integer as it is."""
    features = [
        {"name": "n", "type": "integer", "min": 0, "default": 3},
        {"name": "flag", "type": "boolean", "default": False},
        {"name": "colour", "type": "category", "choices": ["red", "green", "blue"]},
    ]
    world.write(weights=(1, 10, 100), features=features, example={"colour": "red"})
    async with world.client() as client:

        async def ask(**row: Any) -> Any:
            answer = await client.post("/v1/predict", json={"features": row})
            if answer.status_code == 200:
                return answer.json()["predictions"][0]["value"]
            return answer.json()["errors"][0]["loc"][-1]

        assert await ask(colour="red") == 3
        assert await ask(colour="blue", flag=True, n=4) == 214
        assert await ask(colour="mauve") == "colour"
        assert await ask(colour="red", flag=1) == "flag"
        assert await ask(colour="red", n=1.5) == "n"
        assert await ask(colour="red", n=-1) == "n"
        assert await ask(colour="red", n=2**60) == "n"


async def test_versions_are_served_side_by_side(world: Any, helpers: Any) -> None:
    """The newest unless one is named; 10 is newer than 9. Unknown ones are 404, with the known."""
    for version in ("1", "9", "10"):
        world.write(version=version, bias=float(version) * 1000)
    world.write("other")
    async with world.client() as client:
        assert await helpers.value(client, 0) == 10_001
        assert await helpers.value(client, 0, version="9") == 9001
        assert await helpers.value(client, 0, version="1", model="sum") == 1001
        assert await helpers.value(client, 0, model="other") == 1
        for body, said in (
            ({"version": "2"}, "1, 9, 10"),
            ({"model": "nope"}, "other, sum"),
        ):
            answer = await client.post("/v1/predict", json={"features": {"a": 1}, **body})
            assert answer.status_code == 404
            assert answer.json()["type"] == "urn:slipway:problem:unknown-model"
            assert said in answer.json()["detail"]
        listed = (await client.get("/v1/models")).json()
    assert listed["default"] == "sum"
    assert [(each["name"], each["version"], each["newest"]) for each in listed["models"]] == [
        ("other", "1", True), ("sum", "1", False), ("sum", "9", False), ("sum", "10", True),
    ]  # fmt: skip
    assert listed["quarantine"] == []


async def test_a_release_is_newer_than_its_candidates(world: Any) -> None:
    """And a second number is newer than none, as is a word that says nothing of a release."""
    order = ["2-dev", "2-alpha", "2-rc1", "2-rc2", "2-RC10", "2", "2-hotfix", "2.0", "2.9", "2.10",
             "10-rc1"]  # fmt: skip
    for version in reversed(order):
        world.write(version=version)
    async with world.client() as client:
        listed = (await client.get("/v1/models")).json()["models"]
    assert [each["version"] for each in listed] == order


async def test_the_only_model_is_the_default_one(world: Any, helpers: Any) -> None:
    """Whatever the setting says; with two, the setting must name one of them."""
    world.write("mine")
    async with world.client(default_model="sum") as client:
        assert await helpers.value(client, 2) == 3
        world.write("yours")
        await helpers.look(client)
        answer = await client.post("/v1/predict", json={"features": {"a": 1}})
        assert answer.status_code == 404
        assert "mine, yours" in answer.json()["detail"]


async def test_the_models_own_interval_is_used(world: Any) -> None:
    """Two more outputs of the graph as bounds; here the graph's value is named for both."""
    world.write(
        weights=(3, 0),
        interval={"method": "quantiles", "level": 0.8, "lower": "product", "upper": "value"},
        bias=5.0,
    )
    content = _with_product_as_output(world)
    assert content
    async with world.client() as client:
        answer = await client.post("/v1/predict", json={"features": {"a": 2}})
    [found] = answer.json()["predictions"]
    assert found == {"value": 11.0, "interval": {"lower": 6.0, "upper": 11.0, "level": 0.8}}


def _with_product_as_output(world: Any) -> bytes:
    """Make the product an output of the graph too, and mend the checksum."""
    import hashlib

    import onnx

    folder = world.root / "sum" / "1"
    model = onnx.load(folder / "model.onnx")
    shape = onnx.helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, [None, 1])
    model.graph.output.insert(0, shape)
    content: bytes = model.SerializeToString()
    card = json.loads((folder / "model.json").read_text())
    card["sha256"] = hashlib.sha256(content).hexdigest()
    world.put("sum", "1", content, card)
    return content


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/sum", "/v2/models/sum"])
async def test_the_scope_is_needed(world: Any, path: str) -> None:
    """401 without a token, 403 without `predict`; looking for models needs another one."""
    world.write()
    async with world.client() as client:
        assert (await client.get(path)).status_code == 200
        none = await client.get(path, headers={"Authorization": ""})
        assert none.status_code == 401
        other = world.issuer.authorization("u2", "orders:read")
        assert (await client.get(path, headers=other)).status_code == 403
        reader = world.issuer.authorization("u2", "predict")
        assert (await client.get(path, headers=reader)).status_code == 200
        look = await client.post("/internal/models/look", headers=reader)
        assert look.status_code == 403


async def test_overload_and_deadlines_are_answered_in_time(
    world: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After when too much waits, 504 when the caller's time is over."""
    from predict import model as module

    held, began, free = threading.Event(), threading.Event(), threading.Event()
    real = module.build

    def slow(*arguments: Any) -> Any:
        run = real(*arguments)

        def wait(matrix: Any) -> Any:
            if held.is_set():
                began.set()
                assert free.wait(20)
            return run(matrix)

        return wait

    monkeypatch.setattr(module, "build", slow)
    world.write()
    async with world.client(queue_rows=1000) as client:
        held.set()
        thousand = {"features": [{"a": 1}] * 1000}
        first = asyncio.create_task(client.post("/v1/predict", json={"features": {"a": 1}}))
        assert await asyncio.to_thread(began.wait, 10)
        second = asyncio.create_task(client.post("/v1/predict", json=thousand))
        waiting = app_batcher(client)
        async with asyncio.timeout(60):
            while waiting().queued_rows != 1000:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0.001)
        full = await client.post("/v1/predict", json={"features": {"a": 1}})
        assert full.status_code == 503
        assert full.headers["retry-after"] == "1"
        assert full.json()["type"] == "urn:slipway:problem:overloaded"
        free.set()
        assert [(await first).status_code, (await second).status_code] == [200, 200]
        free.clear()
        late = await client.post(
            "/v1/predict",
            json={"features": {"a": 1}},
            headers={"X-Request-Timeout-Ms": "30"},
        )
        assert late.status_code == 504
        assert late.json()["type"] == "urn:slipway:problem:deadline-exceeded"
        free.set()
        counted = 'predictions_total{model="sum",outcome="%s",version="1"}'
        assert await helpers.metric(client, counted % "overloaded") == 1
        assert await helpers.metric(client, counted % "expired") == 1
        assert await helpers.metric(client, counted % "ok") == 1001


def app_batcher(client: Any) -> Any:
    """The queue of `sum`, inside the application that this client calls."""
    app = client._transport.app.__closure__[0].cell_contents
    return lambda: app.state.runtime.extras["predictor"].registry.find("sum").batcher
