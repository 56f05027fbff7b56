"""What a model's file may be: whole in itself, and of one mind with its card."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import skops.io
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression, LogisticRegression

SECRET = np.full((64, 2), 42, dtype=np.float32)
BOTH: dict[str, Any] = {"task": "classification", "classes": ["no", "yes"]}


def graph(
    *nodes: Any, kind: int = TensorProto.FLOAT, names: tuple[str, ...] = (), held: Any = ()
) -> bytes:
    """An ONNX file: the input `features` of two columns, or inputs of one; the output `out`."""
    inputs = [(name, 1) for name in names] or [("features", 2)]
    made = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(name, kind, [None, width]) for name, width in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        list(held),
    )
    ops = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(made, opset_imports=ops, ir_version=8).SerializeToString()
    return content


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    """A node of a graph; the names of its inputs are separated by blanks."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def with_weights_in(location: str, *, where: str) -> bytes:
    """A graph that answers with numbers of a file: of an initializer, a constant or a branch."""
    outside = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=SECRET.shape)
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(SECRET.nbytes))):
        outside.external_data.add(key=key, value=value)
    told = [
        node("ReduceMax", "weights", "most", keepdims=0),
        node("ReduceMax", "features", "rows", axes=[1]),
        node("Add", "rows most", "out"),
    ]
    if where == "initializer":
        return graph(*told, held=[outside])
    if where == "constant":
        return graph(node("Constant", "", "weights", value=outside), *told)
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    branch = helper.make_graph(told, "branch", [], out, [outside])
    return graph(
        node("ReduceMax", "features", "largest", keepdims=0),
        node("Cast", "largest", "chosen", to=TensorProto.BOOL),
        node("If", "chosen", "out", then_branch=branch, else_branch=branch),
    )


async def quarantine(world: Any) -> dict[str, tuple[str, str]]:
    """Serve the folder: where -> reason and detail of what is refused."""
    world.write()
    async with world.client() as client:
        listed = (await client.get("/v1/models")).json()
    return {each["where"]: (each["reason"], each["detail"]) for each in listed["quarantine"]}


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
async def test_a_model_reads_no_other_file(
    world: Any, helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """ONNX Runtime would, in the working directory; the checksum is of the one file alone."""
    secret = tmp_path / "secret.bin"
    SECRET.tofile(secret)
    monkeypatch.chdir(tmp_path)
    for number, location in enumerate(("secret.bin", "./secret.bin", "../secret.bin", str(secret))):
        content = with_weights_in(location, where=where)
        if number == 0:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            [told] = session.run(None, {"features": np.zeros((1, 2), dtype=np.float32)})
            assert told.ravel().tolist() == [42], "without the refusal it would tell"
        name = f"outside-{number}"
        world.put(name, "1", content, helpers.card_of(name, "1", content))
    refused = await quarantine(world)
    assert set(refused) == {f"outside-{number}/1" for number in range(4)}
    for reason, detail in refused.values():
        assert reason == "format"
        assert "save it as one file" in detail


SCORES = graph(node("Identity", "features", "out"))
LARGEST = {
    kind: graph(
        node("Cast", "features", "cast", to=TensorProto.FLOAT),
        node("ReduceMax", "cast", "out", axes=[1]),
        kind=kind,
    )
    for kind in (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
}
SUM = graph(
    node("Cast", "a", "first", to=TensorProto.FLOAT),
    node("Cast", "b", "second", to=TensorProto.FLOAT),
    node("Add", "first second", "out"),
    kind=TensorProto.INT64,
    names=("a", "b"),
)


def pair(**first: Any) -> dict[str, Any]:
    """The features a, of which this is said, and b, a boolean."""
    flag = {"name": "b", "type": "boolean", "default": True}
    example = {"a": True if first["type"] == "boolean" else 1}
    return {"features": [{"name": "a", **first}, flag], "example": example}


INT32 = {"type": "integer", "min": -(2**31), "max": 2**31 - 1}
CONTRADICTIONS: dict[str, tuple[bytes, dict[str, Any], str, str]] = {
    "scores for probabilities": (SCORES, BOTH | {"example": {"a": 2.5}}, "check", "the sum 1"),
    "less than nothing": (
        SCORES, BOTH | {"example": {"a": 3, "b": -2}}, "check", "not from 0 to 1"),
    "two values for a regression": (SCORES, {}, "check", "not one number for each row"),
    "a number as int64": (LARGEST[TensorProto.INT64], {}, "card", "a (number)"),
    "a number as int32": (LARGEST[TensorProto.INT32], {}, "card", "a (number)"),
    "a number as bool": (LARGEST[TensorProto.BOOL], {}, "card", "a (number)"),
    "a number, by name": (SUM, {}, "card", "the input a (tensor(int64))"),
    "an integer as bool": (
        LARGEST[TensorProto.BOOL], pair(type="integer"), "card", "a (integer)"),
    "an integer beyond int32": (
        LARGEST[TensorProto.INT32], pair(type="integer", min=0), "card", "tensor(int32)"),
}  # fmt: skip
AGREEMENTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "probabilities": (SCORES, BOTH | {"example": {"a": 0.25, "b": 0.75},
        "features": [{"name": "a"}, {"name": "b"}]}),
    "integers": (LARGEST[TensorProto.INT64], pair(type="integer")),
    "integers of int32": (LARGEST[TensorProto.INT32], pair(**INT32)),
    "truths": (LARGEST[TensorProto.BOOL], pair(type="boolean")),
    "integers by name": (SUM, pair(type="integer")),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
async def test_a_graph_that_contradicts_its_card_is_refused(
    world: Any, helpers: Any, name: str
) -> None:
    """It would serve, and be wrong: scores as probabilities, 2 for 2.7, one value of many."""
    content, changes, reason, said = CONTRADICTIONS[name]
    world.put("odd", "1", content, helpers.card_of("odd", "1", content, **changes))
    refused = await quarantine(world)
    assert refused["odd/1"][0] == reason
    assert said in refused["odd/1"][1]


@pytest.mark.parametrize("name", AGREEMENTS)
async def test_a_graph_of_one_mind_with_its_card_serves(
    world: Any, helpers: Any, name: str
) -> None:
    """Whatever the type of its inputs."""
    content, changes = AGREEMENTS[name]
    world.put("even", "1", content, helpers.card_of("even", "1", content, **changes))
    assert await quarantine(world) == {}


async def test_a_skops_model_has_the_order_of_its_card(world: Any, helpers: Any) -> None:
    """Of its features and classes, as far as it has the same names for them."""
    rows = [[1.0, 1.0], [2.0, 0.0], [0.0, 5.0], [4.0, 2.0]]
    number = LinearRegression().fit(rows, [2.0, 2.0, 5.0, 6.0])
    word = LogisticRegression().fit(rows, ["no", "no", "yes", "yes"])
    renamed = LogisticRegression().fit(rows, [0, 0, 1, 1])
    for each, name in ((number, "a"), (word, "a"), (renamed, "Height (cm)")):
        each.feature_names_in_ = np.array([name, "b"], dtype=object)  # as of a data frame

    def put(name: str, estimator: Any, **changes: Any) -> None:
        content = skops.io.dumps(estimator)
        card = helpers.card_of(name, "1", content, file="model.skops", **changes)
        world.put(name, "1", content, card)

    turned = [{"name": "b"}, {"name": "a", "default": 1.0}]
    put("features-turned", number, features=turned, example={"b": 1.0})
    put("classes-turned", word, task="classification", classes=["yes", "no"])
    put("three-classes", word, task="classification", classes=["no", "yes", "perhaps"])
    put("number", number)
    put("word", word, **BOTH)
    put("renamed", renamed, **BOTH)
    refused = await quarantine(world)
    assert {where: reason for where, (reason, _) in refused.items()} == {
        "classes-turned/1": "card",
        "features-turned/1": "card",
        "three-classes/1": "card",
    }
    assert "the feature b is number 2 of its feature_names_in_" in refused["features-turned/1"][1]
    assert "the class yes is number 2 of its classes_" in refused["classes-turned/1"][1]
    assert "its classes_ are 2, those of the card 3" in refused["three-classes/1"][1]
