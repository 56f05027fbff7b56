"""A folder of small real models, and applications that serve it."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from chassis.testing import FakeClock, TestIssuer, app_client
from predict.main import create_app
from predict.settings import Settings

SAMPLES = Path(__file__).parents[1] / "predict" / "models"
EXAMPLES = Path(__file__).parents[1] / "examples"


def linear_onnx(weights: Sequence[float], bias: float) -> bytes:
    """An ONNX graph: the features times the weights, plus the bias."""
    matrix = np.array(weights, dtype=np.float32).reshape(-1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["value"]),
        ],
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(matrix, "weights"),
            numpy_helper.from_array(np.array([bias], dtype=np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def card_of(name: str, version: str, content: bytes, **changes: Any) -> dict[str, Any]:
    """The card of such a model with the features a and b."""
    return {
        "name": name,
        "version": version,
        "file": "model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "task": "regression",
        "features": [{"name": "a"}, {"name": "b", "default": 1.0, "min": -100, "max": 100}],
        "example": {"a": 1.0},
        **changes,
    }


@dataclass
class World:
    """A folder of models and what serves it."""

    root: Path
    issuer: TestIssuer
    make_settings: Callable[..., Settings]
    clock: FakeClock = field(default_factory=FakeClock)

    def write(
        self,
        name: str = "sum",
        version: str = "1",
        weights: Sequence[float] = (1, 1),
        bias: float = 0.0,
        **changes: Any,
    ) -> Path:
        """Put a linear model into the folder, as one would: aside first, then in its place."""
        content = linear_onnx(weights, bias)
        return self.put(name, version, content, card_of(name, version, content, **changes))

    def put(self, name: str, version: str, content: bytes, card: dict[str, Any]) -> Path:
        """Put a model's file and its card into the folder."""
        folder = self.root / name / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / card["file"]).write_bytes(content)
        (folder / "model.json").write_text(json.dumps(card))
        return folder

    def settings(self, **overrides: Any) -> Settings:
        """Settings that serve the folder, the model `sum` by default."""
        values = {"models": str(self.root), "default_model": "sum", "access_log": False}
        return self.make_settings(Settings, **{**values, **overrides})

    @property
    def headers(self) -> dict[str, str]:
        """Those of a caller who may predict and have the folder looked at."""
        return self.issuer.authorization("u1", "predict models:write")

    @asynccontextmanager
    async def client(self, **overrides: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Serve, with a held clock: nothing is looked for unless a test asks."""
        self.clock = FakeClock()
        app = create_app(self.settings(**overrides), clock=self.clock)
        async with app_client(app, headers=self.headers, raise_app_exceptions=False) as client:
            yield client


async def look(client: httpx2.AsyncClient) -> dict[str, list[str]]:
    """Have the models looked for now."""
    answer = await client.post("/internal/models/look")
    assert answer.status_code == 200, answer.text
    changes: dict[str, list[str]] = answer.json()
    return changes


async def value(client: httpx2.AsyncClient, a: float, **more: Any) -> float:
    """Predict one row of a linear model."""
    answer = await client.post("/v1/predict", json={"features": {"a": a}, **more})
    assert answer.status_code == 200, answer.text
    found: float = answer.json()["predictions"][0]["value"]
    return found


async def metric(client: httpx2.AsyncClient, name: str) -> float | None:
    """The value of one series, named as Prometheus writes it."""
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split(" ")[1])
    return None


@pytest.fixture
def world(
    tmp_path: Path, token_issuer: TestIssuer, make_settings: Callable[..., Settings]
) -> World:
    """An empty folder of models."""
    root = tmp_path / "models"
    root.mkdir()
    return World(root, token_issuer, make_settings)


@pytest.fixture
def samples(world: World) -> World:
    """The same, serving the models that the package carries."""
    world.root = SAMPLES
    return world


@pytest.fixture
def helpers() -> Any:
    """The functions above, for tests: this folder is no package to import from."""

    class Helpers:
        look = staticmethod(look)
        value = staticmethod(value)
        metric = staticmethod(metric)
        linear_onnx = staticmethod(linear_onnx)
        card_of = staticmethod(card_of)
        examples = EXAMPLES
        samples = SAMPLES

    return Helpers
