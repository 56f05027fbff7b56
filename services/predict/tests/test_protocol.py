"""The Open Inference Protocol: answers fit its own document, tensors are read for what they say.

`open_inference_rest.yaml` is the protocol's OpenAPI document (kserve/open-inference-protocol,
Apache-2.0), as published.
"""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from predict import api_v2

PROTOCOL = yaml.safe_load(Path(__file__).with_name("open_inference_rest.yaml").read_text())
INFER = "/v2/models/sum/infer"


def check(name: str, body: Any) -> None:
    """Hold a body to a schema of the protocol."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": PROTOCOL["components"]}
    jsonschema.validate(body, schema)


def tensor(name: str, data: list[Any], datatype: str = "FP64", **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **changes}


async def test_server_and_health(world: Any) -> None:
    """Everybody may ask; there is no extension, so no binary tensors."""
    world.write()
    async with world.client() as client:
        nobody = {"Authorization": ""}
        server = await client.get("/v2", headers=nobody)
        check("metadata_server_response", server.json())
        assert server.json()["extensions"] == []
        assert (await client.get("/v2/health/live", headers=nobody)).json() == {"live": True}
        assert (await client.get("/v2/health/ready", headers=nobody)).json() == {"ready": True}
        (world.root / "sum" / "1" / "model.json").unlink()
        (world.root / "sum" / "1" / "model.onnx").unlink()
        (world.root / "sum" / "1").rmdir()
        await client.post("/internal/models/look")
        assert (await client.get("/v2/health/ready", headers=nobody)).status_code == 503
        assert (await client.get("/v2/health/live", headers=nobody)).status_code == 200


async def test_metadata_of_a_model(samples: Any, world: Any) -> None:
    """What goes in and what comes out, by version or without."""
    async with samples.client() as client:
        wine = (await client.get("/v2/models/wine-cultivar")).json()
        assert wine == (await client.get("/v2/models/wine-cultivar/versions/1")).json()
        diabetes = (await client.get("/v2/models/diabetes-progression")).json()
        for path in ("", "/versions/1"):
            ready = (await client.get(f"/v2/models/wine-cultivar{path}/ready")).json()
            assert ready == {"name": "wine-cultivar", "ready": True}
        for path in ("nope", "nope/ready", "wine-cultivar/versions/9"):
            missing = await client.get(f"/v2/models/{path}")
            assert missing.status_code == 404
            check("metadata_model_error_response", missing.json())
    for each in (wine, diabetes):
        check("metadata_model_response", each)
        assert each["versions"] == ["1"]
        assert each["platform"] == "onnx_onnxv1"
    assert wine["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]}
    assert wine["properties"]["classes"] == "cultivar-1,cultivar-2,cultivar-3"
    assert [each["name"] for each in diabetes["outputs"]] == ["value", "lower", "upper"]
    assert diabetes["inputs"][0] == {"name": "age", "datatype": "INT64", "shape": [-1]}


async def test_infer_says_the_same_as_v1(samples: Any) -> None:
    """Tensors by feature, the same rows by name: the same numbers; the id comes back."""
    alcohol, proline = [14.2, 12.3], [1500.0, 450.0]
    async with samples.client() as client:
        asked = {
            "id": "q-42",
            "parameters": {"priority": 1},
            "inputs": [tensor("alcohol", alcohol, "FP32"), tensor("proline", proline)],
        }
        check("inference_request", asked)
        answer = await client.post("/v2/models/wine-cultivar/infer", json=asked)
        by_version = await client.post("/v2/models/wine-cultivar/versions/1/infer", json=asked)
        rows = [{"alcohol": a, "proline": p} for a, p in zip(alcohol, proline, strict=True)]
        named = await client.post("/v1/predict", json={"model": "wine-cultivar", "features": rows})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    check("inference_response", body)
    assert body == by_version.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("q-42", "wine-cultivar", "1")
    label, probabilities = body["outputs"]
    assert (label["datatype"], label["shape"]) == ("BYTES", [2])
    assert probabilities["shape"] == [2, 3]
    expected = named.json()["predictions"]
    assert label["data"] == [each["label"] for each in expected]
    flat = [each for row in expected for each in row["probabilities"].values()]
    assert probabilities["data"] == pytest.approx(flat)


GOOD: dict[str, list[dict[str, Any]]] = {
    "a tensor for each feature": [tensor("a", [1, 2]), tensor("b", [10.0, 20.0], "FP32")],
    "in another order, as columns": [
        tensor("b", [[10], [20]], shape=[2, 1]), tensor("a", [1, 2], "INT8", shape=[2, 1])],
    "one matrix, nested": [tensor("features", [[1, 10], [2, 20]], shape=[2, 2])],
    "one matrix, flat": [tensor("features", [1, 10, 2, 20], "FP32", shape=[2, 2])],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
async def test_the_ways_to_send_rows(world: Any, name: str) -> None:
    """All give the sums of the two rows (1, 10) and (2, 20); only what is asked for is answered."""
    world.write()
    async with world.client() as client:
        asked = {"inputs": GOOD[name], "outputs": [{"name": "value"}]}
        answer = await client.post(INFER, json=asked)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    check("inference_response", body)
    assert "id" not in body
    assert body["outputs"] == [tensor("value", [11.0, 22.0])]


BAD: dict[str, tuple[Any, int, str]] = {
    "no inputs": ([], 422, "at least 1 item"),
    "another name": ([tensor("c", [1])], 422, "there is no input c; there are a, b"),
    "the same twice": ([tensor("a", [1]), tensor("a", [1])], 422, "stands twice"),
    "a feature is missing": ([tensor("b", [1])], 422, "the input a is missing"),
    "text for a number": ([tensor("a", ["1"], "BYTES")], 422, "a is FP64; BYTES does not fit"),
    "an unknown datatype": ([tensor("a", [1], "FP16")], 422, "FP16 does not fit"),
    "a string in a float": ([tensor("a", ["1"])], 422, "an element is no FP64"),
    "a bool in a float": ([tensor("a", [True])], 422, "an element is no FP64"),
    "a fraction in an integer": ([tensor("a", [1.5], "INT32")], 422, "is no INT32"),
    "beyond the datatype": ([tensor("a", [200], "INT8")], 422, "outside of INT8"),
    "below zero, unsigned": ([tensor("a", [-1], "UINT8")], 422, "outside of UINT8"),
    "beyond what a float holds": ([tensor("a", [10**400])], 422, "outside of FP64"),
    "the same, as a matrix": (
        [tensor("features", [1, -(10**400)], "FP32", shape=[1, 2])], 422, "outside of FP32"),
    "a number that a parser may refuse": ([tensor("a", [10**4000])], 422, "outside of FP64"),
    "beyond exact integers": ([tensor("a", [2**53 + 1], "INT64")], 422, "beyond 2**53"),
    "and below them": ([tensor("a", [-(2**53) - 1], "INT64")], 422, "beyond 2**53"),
    "too many parameters": (
        [{**tensor("a", [1]), "parameters": dict.fromkeys(map(str, range(101)))}],
        422, "more than 100 parameters"),
    "too few elements": ([tensor("a", [1], shape=[2])], 422, "do not fill the shape [2]"),
    "rows that differ": ([tensor("a", [1]), tensor("b", [1, 2])], 422, "the rows are 1"),
    "ragged": ([tensor("features", [[1, 2], [3]], shape=[2, 2])], 422, "not of shape [2, 2]"),
    "a matrix too wide": ([tensor("features", [1, 2, 3], shape=[1, 3])], 422, "not [1, 2]"),
    "a matrix and more": (
        [tensor("features", [1, 2], shape=[1, 2]), tensor("a", [1])], 422, "send it alone"),
    "no rows": ([tensor("a", [], shape=[0])], 422, "1 to 1000"),
    "too many rows": ([tensor("a", [1] * 1001)], 422, "1 to 1000"),
    "out of range": ([tensor("a", [1]), tensor("b", [101])], 422, "is more than 100"),
    "binary data": (
        [{**tensor("a", []), "parameters": {"binary_data_size": 8}}], 415, "no extension for"),
    "not a list": ({"a": 1}, 422, "see errors"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_what_does_not_fit_is_said(world: Any, helpers: Any, name: str) -> None:
    """A problem (RFC 9457) that is the protocol's error object too; it says which input."""
    world.write()
    inputs, status, said = BAD[name]
    async with world.client() as client:
        answer = await client.post(INFER, json={"inputs": inputs})
        assert answer.status_code == status, answer.text
        problem = answer.json()
        check("inference_error_response", problem)
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["error"] == problem["detail"]
        told = problem["error"] + "".join(e["message"] for e in problem.get("errors", []))
        assert said in told
        counted = 'predictions_total{model="sum",outcome="invalid",version="1"}'
        assert await helpers.metric(client, counted) == 1


async def test_a_body_of_many_errors_is_refused_without_telling_them_all(world: Any) -> None:
    """To describe a hundred thousand takes seconds, in which nobody else is answered."""
    world.write()
    bad = [{"name": 1, "shape": ["x"], "datatype": 2, "data": 3} for _ in range(1000)]
    wide = {**tensor("a", [1]), "data": 1, "parameters": dict.fromkeys(map(str, range(100)))}
    many = {**wide, "parameters": dict.fromkeys(map(str, range(30_000)))}
    async with world.client() as client:

        async def refused(body: Any) -> list[Any]:
            answer = await client.post(INFER, json=body)
            assert answer.status_code == 422
            errors: list[Any] = answer.json()["errors"]
            return errors

        assert {tuple(each["loc"][:3]) for each in await refused({"inputs": bad})} == {
            ("body", "inputs", 0)
        }
        assert len(await refused({"inputs": [many]})) == 2
        assert len(await refused({"inputs": [wide]})) == 100
        wanted = [{"name": 1, "parameters": wide["parameters"]} for _ in range(100)]
        [one] = await refused({"inputs": [wide], "outputs": wanted})
        assert one["message"] == "802 things do not fit; too many to name them"


async def test_every_error_has_the_protocols_member(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those from before the routes and after; the other API's errors stay as they are."""
    world.write()

    def fails(*_: Any) -> None:
        raise RuntimeError("not foreseen")

    body = {"inputs": [tensor("a", [1])]}
    async with world.client(max_body_bytes=2000) as client:
        answers = [
            await client.post(INFER, json=body, headers={"Authorization": ""}),
            await client.post(INFER, json=body, headers={"Authorization": "Bearer x"}),
            await client.post(INFER, content="{"),
            await client.post(INFER, content='{"inputs": "\\u0000"}'),
            await client.get("/v2/nothing"),
            await client.put(INFER),
            await client.post(INFER, json={**body, "outputs": [{"name": "nothing"}]}),
            await client.post(
                INFER, content=b"{}\x00\x00", headers={"Inference-Header-Content-Length": "2"}
            ),
            await client.post(INFER, content=b" " * 2001),
            await client.post(INFER, json=body, headers={"X-Request-Timeout-Ms": "0"}),
            await client.get("/v2/models/%00"),
            await client.get("/models/nope", headers={"X-API-Version": "v2"}),
        ]
        monkeypatch.setattr(api_v2, "write", fails)
        answers.append(await client.post(INFER, json=body))
        for answer in answers:
            check("inference_error_response", answer.json())
            assert answer.json()["error"], answer.text
            assert answer.headers["content-length"] == str(len(answer.content))
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert [each.status_code for each in answers] == [
            401, 401, 400, 422, 404, 405, 422, 415, 413, 504, 422, 404, 500,
        ]  # fmt: skip
        assert answers[0].headers["www-authenticate"].startswith("Bearer")
        assert "error" not in (await client.get("/v1/models/nope")).json()


async def test_types_other_than_numbers(world: Any) -> None:
    """A category is BYTES, a boolean BOOL; their values are checked."""
    features = [
        {"name": "flag", "type": "boolean"},
        {"name": "colour", "type": "category", "choices": ["red", "blue"], "default": "blue"},
        {"name": "n", "type": "integer", "default": 2, "max": 5},
    ]
    world.write(weights=(1, 10, 100), features=features, example={"flag": True})
    async with world.client() as client:

        async def infer(*inputs: dict[str, Any]) -> Any:
            answer = await client.post(INFER, json={"inputs": inputs})
            body = answer.json()
            return body["outputs"][0]["data"] if answer.status_code == 200 else body["error"]

        flag = tensor("flag", [True, False], "BOOL")
        assert await infer(flag) == [211.0, 210.0]
        assert await infer(flag, tensor("colour", ["red", "blue"], "BYTES")) == [201.0, 210.0]
        assert "colour is one of red, blue" in await infer(
            flag, tensor("colour", ["x", "y"], "BYTES")
        )
        assert "INT64; FP64 does not fit" in await infer(flag, tensor("n", [1, 2]))
        assert "is more than 5" in await infer(flag, tensor("n", [1, 6], "INT64"))
        matrix = tensor("features", [1, 0, 3, 0, 1, 1], shape=[2, 3])
        assert await infer(matrix) == [301.0, 110.0]
        assert "is less than" in await infer(
            tensor("features", [1, 0, -(2.0**53) - 2], shape=[1, 3])
        )
        for bad in ([2, 0, 1, 0, 0, 1], [0.5, 0, 1, 0, 0, 1], [0, 2, 1, 0, 0, 1]):
            assert "a value is" in await infer(tensor("features", bad, shape=[2, 3]))
