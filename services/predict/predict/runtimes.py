"""What computes: ONNX Runtime for `model.onnx`, scikit-learn through skops for `model.skops`.

A runtime is a function from a matrix (rows by features, float64) to named arrays. The libraries are
heavy, so each is imported when its first model is loaded. Nothing here unpickles: a pickle (and a
joblib file is one) runs whatever code its author put into it, at the moment it is loaded.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predict.card import Feature, ModelCard, QuantileInterval
from predict.features import Matrix

Outputs = Mapping[str, NDArray[np.float64]]
"""`value` of each row, with `lower` and `upper` where there is an interval; or `probabilities`."""

Run = Callable[[Matrix], Outputs]

_MAX_INFLATED = 8
"""A .skops file (a zip) may unpack to so many times the limit of a model's file."""

_NO_FOLDER = os.devnull
"""Where a model may look for other files: below what is no folder there can be none."""

_NAMES_A_FILE = re.compile("external|stored in|file inside", re.IGNORECASE)
"""How ONNX Runtime says that it did not find one. For the text only: it is refused anyhow."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class LoadError(Exception):
    """A model cannot be loaded. `reason` is one of `REASONS`; the text is one line for people."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        self.reason = reason
        self.detail = " ".join(detail.split())[:500]
        super().__init__(self.detail)


REASONS = (
    "pickle", "name", "limit", "missing", "card", "size", "checksum", "untrusted", "format",
    "check", "unreadable",
)  # fmt: skip


class ModelError(Exception):
    """A loaded model could not compute these rows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may use."""

    max_bytes: int
    intra_threads: int
    skops_trusted: tuple[str, ...] = ()


def build(card: ModelCard, content: bytes, limits: Limits) -> Run:
    """Return the function that computes the model; blocking, for a thread.

    Raises:
        LoadError: the file is not what the card says, or holds a type that is not trusted.
    """
    if card.file == "model.onnx":
        return _onnx(card, content, limits)
    return _skops(card, content, limits)


def _onnx(card: ModelCard, content: bytes, limits: Limits) -> Run:
    import onnxruntime  # noqa: PLC0415  (heavy)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = limits.intra_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; the log is ours
    # Threads that spin for the next call would take the CPU of the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights may be named as files beside the model, for bytes those of the working directory. The
    # checksum was of these bytes alone, and no other file is the model's to read.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (the library's errors have no common class)
        why = "ONNX Runtime refused it"
        if _NAMES_A_FILE.search(str(error)):
            why = "it names other files as its weights (external data); save it as one file"
        raise LoadError("format", f"{why}: {error}") from None
    feed = _feed(card, session.get_inputs())
    known = [output.name for output in session.get_outputs()]
    wanted = _wanted(card, known)

    def run(matrix: Matrix) -> Outputs:
        found: list[Any] = session.run(list(wanted.values()), feed(matrix))
        return {
            name: _array(values, name)
            for name, values in zip(wanted, found, strict=True)
        }  # fmt: skip

    return run


def _feed(card: ModelCard, inputs: list[Any]) -> Callable[[Matrix], dict[str, Any]]:
    """Return how a matrix becomes the inputs of a graph: one for all features, or one for each."""
    for each in inputs:
        if each.type not in _DTYPES:
            raise LoadError("format", f"its input {each.name} is a {each.type}; only numbers work")
    if len(inputs) == 1:
        name, dtype = inputs[0].name, _DTYPES[inputs[0].type]
        for feature in card.features:
            _holds(inputs[0], feature)
        return lambda matrix: {name: matrix.astype(dtype)}
    names = [feature.name for feature in card.features]
    if sorted(each.name for each in inputs) != sorted(names):
        raise LoadError("format", "its inputs are neither one matrix nor the features of the card")
    for each in inputs:
        _holds(each, card.feature(each.name))
    columns = [(each.name, names.index(each.name), _DTYPES[each.type]) for each in inputs]
    return lambda matrix: {
        name: matrix[:, [position]].astype(dtype) for name, position, dtype in columns
    }


def _holds(graph_input: Any, feature: Feature) -> None:
    """Refuse an input that would change the values of a feature: 2.7 to 2, or 2**40 to 0."""
    kind = graph_input.type
    if kind == "tensor(bool)":
        fits = feature.type == "boolean"
    elif kind == "tensor(int32)" and feature.type == "integer":
        low, high = feature.min, feature.max
        fits = low is not None and high is not None and low >= -(2**31) and high < 2**31
    else:
        fits = feature.type != "number" or not kind.startswith("tensor(int")
    if not fits:
        raise LoadError(
            "card",
            f"the feature {feature.name} ({feature.type}) does not fit the input {graph_input.name}"
            f" ({kind}), which cannot hold every value that the card allows",
        )


def _wanted(card: ModelCard, known: list[str]) -> dict[str, str]:
    """Return which outputs of the graph are read, by our name for them."""
    wanted = {_main(card): card.output or known[-1]}
    if isinstance(card.interval, QuantileInterval):
        wanted |= {"lower": card.interval.lower, "upper": card.interval.upper}
    for name in wanted.values():
        if name not in known:
            raise LoadError("format", f"it has no output {name}; there are {', '.join(known)}")
    return wanted


def _main(card: ModelCard) -> str:
    return "value" if card.task == "regression" else "probabilities"


def _skops(card: ModelCard, content: bytes, limits: Limits) -> Run:
    _inflates_within(content, limits.max_bytes * _MAX_INFLATED)
    # OpenMP reads this when scikit-learn loads it; one thread for each core would fight the rest.
    os.environ.setdefault("OMP_NUM_THREADS", str(limits.intra_threads))
    import skops.io  # noqa: PLC0415  (heavy)
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        held = set(skops.io.get_untrusted_types(data=content))
        # What is not in the list makes this raise before anything of it is imported.
        estimator: Any = skops.io.loads(content, trusted=sorted(held & set(limits.skops_trusted)))
    except UntrustedTypesFoundException:
        refused = ", ".join(sorted(held - set(limits.skops_trusted)))
        raise LoadError(
            "untrusted",
            f"it holds types that are not trusted: {refused};"
            " read their code, then name them in PREDICT_SKOPS_TRUSTED",
        ) from None
    except Exception as error:  # noqa: BLE001  (whatever a broken file leads to)
        raise LoadError("format", f"skops refused it: {type(error).__name__}: {error}") from None
    method = "predict" if card.task == "regression" else "predict_proba"
    compute = getattr(estimator, method, None)
    if compute is None:
        raise LoadError("format", f"a {type(estimator).__name__} has no {method}")
    _in_order("feature", [feature.name for feature in card.features], estimator)
    if card.task == "classification":
        _in_order("class", card.classes, estimator)
    # Rows have no names here; their order was compared above.
    warnings.filterwarnings("ignore", "X does not have valid feature names")
    name = _main(card)
    return lambda matrix: {name: _array(compute(matrix), name)}


def _in_order(what: str, ours: list[str], estimator: Any) -> None:
    """Refuse a card that has another order than the estimator. It may give things other names."""
    told = "feature_names_in_" if what == "feature" else "classes_"
    held = getattr(estimator, told, None)
    if not isinstance(held, np.ndarray):
        return
    theirs = [str(each) for each in held.ravel()]
    if len(theirs) != len(ours):
        raise LoadError("card", f"its {told} are {len(theirs)}, those of the card {len(ours)}")
    for position, name in enumerate(ours):
        if name in theirs and theirs[position] != name:
            raise LoadError(
                "card",
                f"the {what} {name} is number {theirs.index(name) + 1} of its {told}, and number"
                f" {position + 1} of the card",
            )


def _inflates_within(content: bytes, limit: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise LoadError("format", f"a .skops file is a zip, and this is none: {error}") from None
    if size > limit:
        raise LoadError("size", f"it unpacks to {size} bytes; at most {limit} are taken")


def _array(values: Any, name: str) -> NDArray[np.float64]:
    if not isinstance(values, np.ndarray):
        raise ModelError(f"the output {name} is no tensor; convert with zipmap turned off")
    array = values.astype(np.float64, copy=False)
    if name == "probabilities":
        return array
    if array.ndim == 0 or array.shape[1:] not in {(), (1,)}:
        raise ModelError(f"the output {name} has shape {array.shape}, not one number for each row")
    return array.reshape(-1)
