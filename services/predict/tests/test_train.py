"""The shipped models are what the script makes, and they are worth what their cards say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine

from predict import train
from predict.model import load
from predict.runtimes import Limits

LIMITS = Limits(max_bytes=1_000_000, intra_threads=1)


def shipped(helpers: Any, name: str) -> Path:
    root: Path = helpers.examples if name == "wine-skops" else helpers.samples
    return root / ("diabetes-progression" if name == "diabetes" else "wine-cultivar") / "1"


@pytest.fixture(scope="module")
def trained() -> dict[str, train.Trained]:
    """All of them, trained anew."""
    return {name: make() for name, (_, make) in train.SAMPLES.items()}


@pytest.mark.parametrize("name", train.SAMPLES)
def test_training_anew_gives_the_same_model(
    trained: dict[str, train.Trained], helpers: Any, name: str, tmp_path: Path
) -> None:
    """The same metrics, the same card, the same predictions; of the same libraries also in bits."""
    folder = shipped(helpers, name)
    card = json.loads((folder / "model.json").read_text())
    made = trained[name].card
    assert made["metrics"] == pytest.approx(card["metrics"], rel=1e-4)
    for key in ("features", "example", "interval", "classes"):
        assert made.get(key) == card.get(key), key
    again = train.save(trained[name], tmp_path)
    rows = _rows(name)
    outputs = [
        load(
            (each / "model.json").read_bytes(),
            (each / card["file"]).read_bytes(),
            (card["name"], card["version"]),
            LIMITS,
        ).run(rows)
        for each in (folder, again)
    ]
    assert outputs[0].keys() == outputs[1].keys()
    for key, array in outputs[0].items():
        np.testing.assert_allclose(array, outputs[1][key], rtol=1e-4)
    if made["training"]["libraries"] == card["training"]["libraries"]:
        assert (again / "MODEL_CARD.md").read_text() == (folder / "MODEL_CARD.md").read_text()


def _rows(name: str) -> Any:
    if name == "diabetes":
        return load_diabetes(return_X_y=True, scaled=False)[0]
    return load_wine(return_X_y=True)[0]


@pytest.mark.parametrize("name", train.SAMPLES)
def test_the_served_model_is_the_fitted_one(
    trained: dict[str, train.Trained], helpers: Any, name: str
) -> None:
    """ONNX computes in 32 bits what scikit-learn computes in 64: the same but for rounding."""
    folder = shipped(helpers, name)
    card = json.loads((folder / "model.json").read_text())
    content = (folder / card["file"]).read_bytes()
    assert len(content) < 1_000_000
    loaded = load(
        (folder / "model.json").read_bytes(), content, (card["name"], card["version"]), LIMITS
    )
    rows = _rows(name)
    outputs = loaded.run(rows)
    estimator = trained[name].estimator
    if name == "diabetes":
        np.testing.assert_allclose(outputs["value"], estimator.predict(rows), rtol=1e-3)
        width = card["interval"]["half_width"]
        np.testing.assert_allclose(outputs["upper"] - outputs["lower"], 2 * width)
    else:
        wanted = estimator.predict_proba(rows)
        np.testing.assert_allclose(outputs["probabilities"], wanted, atol=1e-5)


def test_the_cards_say_what_is_true(trained: dict[str, train.Trained], helpers: Any) -> None:
    """Better than guessing, intervals that hold, and a page with every metric."""
    diabetes = trained["diabetes"].card["metrics"]
    assert diabetes["mae"] < 0.8 * diabetes["baseline_mae_mean"]
    assert diabetes["mae"] < 1.02 * diabetes["baseline_mae_ridge"]
    # Of 89 rows 90 % should be inside; over twenty splits luck has no say.
    assert diabetes["interval_coverage"] >= 0.85
    assert 0.88 <= diabetes["interval_coverage_mean_of_20_splits"] <= 0.95
    wine = trained["wine"].card["metrics"]
    assert wine["accuracy"] > 0.9 > 2 * wine["baseline_accuracy_majority"]
    for name in train.SAMPLES:
        text = (shipped(helpers, name) / "MODEL_CARD.md").read_text()
        for metric, value in trained[name].card["metrics"].items():
            assert f"| {metric} | {value:g} |" in text


def test_the_script_writes_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m predict.train --only wine --out DIR`: three files and the metrics."""
    assert train.main(["--only", "wine", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "wine-cultivar" / "1"
    assert sorted(file.name for file in folder.iterdir()) == [
        "MODEL_CARD.md", "model.json", "model.onnx",
    ]  # fmt: skip
    assert "  accuracy 1" in capsys.readouterr().out
