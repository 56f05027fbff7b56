"""Makes the sample models anew: `python -m predict.train`. Needs the dependency group `train`.

Two small models on data sets that scikit-learn carries in its wheel, each with its `model.json` and
a model card. Everything random has a seed; the same libraries make the same models.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import ExtraTreesRegressor, VotingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from predict.card import ModelCard

Matrix = NDArray[np.float64]

SEED = 20261122
LEVEL = 0.9
REPEATS = 20
MODELS = Path(__file__).parent / "models"
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True, slots=True)
class Column:
    """A feature as people know it."""

    name: str
    description: str
    unit: str = ""
    type: str = "number"


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model, its card without the checksum, and its file."""

    estimator: Any
    card: dict[str, Any]
    content: bytes
    about: str


DIABETES = (
    Column("age", "Age", "years", "integer"),
    Column("sex", "1 or 2; the data set does not say which is which", "", "integer"),
    Column("bmi", "Body mass index", "kg/m2"),
    Column("blood_pressure", "Mean arterial pressure", "mmHg"),
    Column("total_cholesterol", "Total serum cholesterol", "mg/dL"),
    Column("ldl", "Low-density lipoproteins", "mg/dL"),
    Column("hdl", "High-density lipoproteins", "mg/dL"),
    Column("cholesterol_ratio", "Total cholesterol over HDL"),
    Column("log_triglycerides", "Logarithm of the serum triglycerides level"),
    Column("glucose", "Blood sugar level", "mg/dL"),
)
WINE = (
    Column("alcohol", "Alcohol", "% by volume"),
    Column("malic_acid", "Malic acid", "g/L"),
    Column("ash", "Ash", "g/L"),
    Column("alcalinity_of_ash", "Alcalinity of the ash"),
    Column("magnesium", "Magnesium", "mg/L"),
    Column("total_phenols", "Total phenols"),
    Column("flavanoids", "Flavanoids"),
    Column("nonflavanoid_phenols", "Phenols that are no flavanoids"),
    Column("proanthocyanins", "Proanthocyanins"),
    Column("color_intensity", "Intensity of the colour"),
    Column("hue", "Hue"),
    Column("od280_od315", "Absorbance at 280 nm over that at 315 nm, diluted"),
    Column("proline", "Proline", "mg/L"),
)


def diabetes() -> Trained:
    """Fit the regression: the mean of a ridge regression and a forest, better than either."""
    features, target = load_diabetes(return_X_y=True, scaled=False)
    train, calibration, test = _three_ways(len(target), SEED)
    model = _blend().fit(features[train], target[train])
    half_width = _half_width(model, features[calibration], target[calibration])
    predicted = model.predict(features[test])
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(features[train], target[train])
    metrics = {
        "mae": mean_absolute_error(target[test], predicted),
        "r2": r2_score(target[test], predicted),
        "interval_coverage": float(np.mean(np.abs(target[test] - predicted) <= half_width)),
        "interval_coverage_mean_of_20_splits": _mean_coverage(features, target),
        "baseline_mae_mean": mean_absolute_error(
            target[test], np.full(len(test), target[train].mean())
        ),
        "baseline_mae_ridge": mean_absolute_error(target[test], ridge.predict(features[test])),
    }
    card = {
        "name": "diabetes-progression",
        "version": "1",
        "description": "Progression of diabetes one year after the measurements.",
        "file": "model.onnx",
        "task": "regression",
        "unit": "score of 25 to 346",
        "interval": {
            "method": "split-conformal",
            "level": LEVEL,
            "half_width": _plain(half_width),
            "coverage": _plain(metrics["interval_coverage"]),
        },
        **_described(DIABETES, features[train], features[test][0]),
        "metrics": {name: _plain(value) for name, value in metrics.items()},
    }
    card["training"]["data"] = "scikit-learn load_diabetes, 60 % of 442 rows (Efron et al., 2004)"
    about = (
        f"The mean of a ridge regression and 100 extremely randomised trees, fitted on {len(train)}"
        f" rows. The interval is split-conformal: its half width is the {LEVEL:.0%} quantile of the"
        f" absolute errors on {len(calibration)} further rows, so it is as wide for every row. The"
        f" metrics are of the last {len(test)} rows, which neither has seen. The gain over the"
        " ridge regression alone is within the noise of so few rows; it is there to show a model"
        " that costs something to compute."
    )
    return Trained(model, card, _onnx(model, features[test]), about)


def wine() -> Trained:
    """Fit the classifier: a logistic regression on scaled features."""
    features, target = load_wine(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(target)), test_size=0.4, random_state=SEED, stratify=target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=500))
    model.fit(features[train], target[train])
    probabilities = model.predict_proba(features[test])
    metrics = {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == target[test])),
        "log_loss": log_loss(target[test], probabilities),
        "baseline_accuracy_majority": float(np.mean(target[test] == np.bincount(target).argmax())),
    }
    card = {
        "name": "wine-cultivar",
        "version": "1",
        "description": "Which of three cultivars of the same region a wine was made of.",
        "file": "model.onnx",
        "task": "classification",
        "classes": ["cultivar-1", "cultivar-2", "cultivar-3"],
        **_described(WINE, features[train], features[test][0]),
        "metrics": {name: _plain(value) for name, value in metrics.items()},
    }
    card["training"]["data"] = "scikit-learn load_wine, 60 % of 178 rows (UCI; Aeberhard, Forina)"
    about = (
        f"A multinomial logistic regression on standardised features, fitted on {len(train)} rows;"
        f" the metrics are of the other {len(test)}."
    )
    return Trained(model, card, _onnx(model, features[test]), about)


def wine_skops() -> Trained:
    """Return the same classifier, saved with skops: what a scikit-learn model needs, and no more.

    It is not among the models that the package carries: to load it imports scikit-learn, which
    costs more time and memory than the rest of the service.
    """
    trained = wine()
    card = {**trained.card, "file": "model.skops"}
    return Trained(trained.estimator, card, skops.io.dumps(trained.estimator), trained.about)


SAMPLES: Mapping[str, tuple[Path, Callable[[], Trained]]] = {
    "diabetes": (MODELS, diabetes),
    "wine": (MODELS, wine),
    "wine-skops": (EXAMPLES, wine_skops),
}


def save(trained: Trained, root: Path) -> Path:
    """Write a model, its `model.json` and its card below `root`; return the folder."""
    digest = hashlib.sha256(trained.content).hexdigest()
    card = {"name": "", "version": "", "description": "", "file": "", "sha256": digest}
    text = json.dumps({**card, **trained.card}, indent=2) + "\n"
    ModelCard.model_validate_json(text)
    folder = root / str(trained.card["name"]) / str(trained.card["version"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / trained.card["file"]).write_bytes(trained.content)
    (folder / "model.json").write_text(text, encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(model_card(trained), encoding="utf-8")
    return folder


def model_card(trained: Trained) -> str:
    """Return the model card, in Markdown."""
    card = trained.card
    metrics = "\n".join(f"| {name} | {value:g} |" for name, value in card["metrics"].items())
    features = "\n".join(
        f"| `{each['name']}` | {each['description']} | {each.get('unit', '')} |"
        f" {each['default']:g} | {each['min']:g} to {each['max']:g} |"
        for each in card["features"]
    )
    libraries = ", ".join(f"{k} {v}" for k, v in card["training"]["libraries"].items())
    return (
        f"# {card['name']} {card['version']}\n\n{card['description']}\n\n"
        "Generated by `python -m predict.train`; do not edit. An example that shows how models are"
        " served: not for decisions about people, patients or bottles.\n\n"
        f"## Model\n\n{trained.about}\n\nData: {card['training']['data']}. Made with {libraries};"
        f" seed {SEED}.\n\n"
        f"## Metrics\n\n| metric | value |\n|---|---|\n{metrics}\n\n"
        "## Features\n\nThe default is the median of training. What lies further outside of the"
        " training data than half its range is refused: a model says nothing about it.\n\n"
        f"| name | what | unit | default | taken |\n|---|---|---|---|---|\n{features}\n"
    )


def _blend() -> Any:
    forest = ExtraTreesRegressor(100, min_samples_leaf=4, random_state=SEED)
    linear = make_pipeline(StandardScaler(), Ridge())
    return VotingRegressor([("linear", linear), ("forest", forest)])


def _three_ways(rows: int, seed: int) -> tuple[Any, Any, Any]:
    train, rest = train_test_split(np.arange(rows), test_size=0.4, random_state=seed)
    calibration, test = train_test_split(rest, test_size=0.5, random_state=seed)
    return train, calibration, test


def _half_width(model: Any, features: Matrix, target: Matrix) -> float:
    """Return the conformal quantile: the ceil((n + 1) * level)-th smallest error of n."""
    errors = np.sort(np.abs(target - model.predict(features)))
    return float(errors[min(math.ceil((len(errors) + 1) * LEVEL), len(errors)) - 1])


def _mean_coverage(features: Matrix, target: Matrix) -> float:
    """Return the coverage over many splits: on one small test set it is mostly luck."""
    covered = []
    for seed in range(REPEATS):
        train, calibration, test = _three_ways(len(target), seed)
        model = _blend().fit(features[train], target[train])
        width = _half_width(model, features[calibration], target[calibration])
        covered.append(np.mean(np.abs(target[test] - model.predict(features[test])) <= width))
    return float(np.mean(covered))


def _described(columns: tuple[Column, ...], rows: Matrix, example: Matrix) -> dict[str, Any]:
    """Return the parts of a card that follow from the training rows."""
    features, spread = [], {}
    for position, column in enumerate(columns):
        values = rows[:, position]
        features.append({**_feature(column, values)})
        spread[column.name] = _distribution(values)
    return {
        "features": features,
        "example": {
            column.name: int(value) if column.type == "integer" else _plain(value)
            for column, value in zip(columns, example, strict=True)
        },
        "training": {
            "rows": len(rows),
            "libraries": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
            "features": spread,
        },
    }


def _feature(column: Column, values: Matrix) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    few = column.type == "integer" and len(np.unique(values)) == 2  # noqa: PLR2004  (a choice)
    margin = 0.0 if few else (high - low) / 2
    told: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "description": column.description,
        "unit": column.unit,
        "default": _plain(np.median(values)),
        "min": _plain(max(low - margin, 0.0)),
        "max": _plain(high + margin),
    }
    if column.type == "integer":
        told["default"] = int(told["default"])
        told["min"], told["max"] = math.floor(told["min"]), math.ceil(told["max"])
    return told


def _distribution(values: Matrix) -> dict[str, Any]:
    """Return deciles, or the edges between the values where there are few."""
    distinct = np.unique(values)
    edges = (
        (distinct[1:] + distinct[:-1]) / 2
        if len(distinct) <= 10  # noqa: PLR2004  (fewer than deciles)
        else np.unique(np.quantile(values, np.arange(0.1, 1.0, 0.1)))
    )
    edges = np.unique([_plain(edge) for edge in edges])
    shares = np.bincount(
        np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1
    ) / len(values)
    return {"edges": edges.tolist(), "shares": [_plain(share) for share in shares]}


def _onnx(model: Any, probe: Matrix) -> bytes:
    """Convert, and hold the converted model to the original one."""
    import onnxruntime  # noqa: PLC0415  (for this model only)
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    classifies = hasattr(model, "predict_proba")
    graph = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, probe.shape[1]]))],
        # A tensor of probabilities, and not a list of mappings.
        options={"zipmap": False} if classifies else None,
        target_opset=17,
    )
    content: bytes = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(None, {"features": probe.astype(np.float32)})[-1])
    wanted = model.predict_proba(probe) if classifies else model.predict(probe).reshape(-1, 1)
    worst = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if worst > 0.001:  # noqa: PLR2004  (float32 against float64)
        raise SystemExit(f"train: the ONNX model differs by {worst} from the fitted one")
    return content


def _plain(value: Any) -> float:
    """Round to six significant digits: the rest is noise of the machine."""
    return float(f"{float(value):.6g}")


def main(arguments: list[str] | None = None) -> int:
    """Train, write and print the metrics. Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m predict.train", description=__doc__)
    parser.add_argument("--out", type=Path, help="a folder for all of them; else each its own")
    parser.add_argument("--only", choices=sorted(SAMPLES), help="one of them")
    options = parser.parse_args(arguments)
    for name, (home, train) in SAMPLES.items():
        if options.only not in {None, name}:
            continue
        trained = train()
        folder = save(trained, options.out or home)
        print(f"{folder}: {len(trained.content)} bytes")
        for metric, value in trained.card["metrics"].items():
            print(f"  {metric} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
