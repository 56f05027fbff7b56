"""What computes: ONNX Runtime for `model.onnx`, scikit-learn through skops for `model.skops`.

A runtime is a function from a matrix (rows by features, float64) to named arrays. The libraries are
heavy, so each is imported when its first model is loaded. Nothing here unpickles: a pickle (and a
joblib file is one) runs whatever code its author put into it, at the moment it is loaded.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predict.card import ModelCard, QuantileInterval
from predict.features import Matrix

Outputs = Mapping[str, NDArray[np.float64]]
"""`value` of each row, with `lower` and `upper` where there is an interval; or `probabilities`."""

Run = Callable[[Matrix], Outputs]

_MAX_INFLATED = 8
"""A .skops file (a zip) may unpack to so many times the limit of a model's file."""

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
    try:
        # From bytes: the checksum was of these, and no path can lead to other files.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (the library's errors have no common class)
        raise LoadError("format", f"ONNX Runtime refused it: {error}") from None
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
        return lambda matrix: {name: matrix.astype(dtype)}
    names = [feature.name for feature in card.features]
    if sorted(each.name for each in inputs) != sorted(names):
        raise LoadError("format", "its inputs are neither one matrix nor the features of the card")
    columns = [(each.name, names.index(each.name), _DTYPES[each.type]) for each in inputs]
    return lambda matrix: {
        name: matrix[:, [position]].astype(dtype) for name, position, dtype in columns
    }


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
    name = _main(card)
    return lambda matrix: {name: _array(compute(matrix), name)}


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
    return array if name == "probabilities" else array.reshape(len(array), -1)[:, 0]
