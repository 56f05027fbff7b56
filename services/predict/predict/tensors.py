"""Tensors of the Open Inference Protocol v2, in JSON: what they may be, and the way to a matrix.

A model's inputs are its features, one tensor of shape [rows] (or [rows, 1]) each; those with a
default may be left out. A client that has a matrix sends it as one tensor named `features`, of
shape [rows, number of features], numbers in the order of the features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from chassis.problems import VALIDATION_TYPE, Problem
from predict.card import Feature
from predict.features import MAX_INTEGER, Matrix, Rows
from predict.model import Model
from predict.runtimes import Outputs
from predict.settings import MAX_ROWS

MATRIX = "features"
DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}

_WHOLE = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
_ACCEPTED = {
    "number": {"FP32", "FP64", *_WHOLE},
    "integer": _WHOLE,
    "boolean": {"BOOL"},
    "category": {"BYTES"},
}
_BITS = {name: int(name.lstrip("UINT")) for name in _WHOLE}

_MAX_PARAMETERS = 100


def _few(parameters: Any) -> Any:
    # Counted before they are looked at: each bad one would be several errors.
    if isinstance(parameters, dict) and len(parameters) > _MAX_PARAMETERS:
        raise ValueError(f"there are more than {_MAX_PARAMETERS} parameters")
    return parameters


Parameters = Annotated[
    dict[str, bool | int | float | str],
    Field(max_length=_MAX_PARAMETERS),
    BeforeValidator(_few),
]


class InputTensor(BaseModel):
    """An input: `data` nested as `shape` says, or flat in row-major order."""

    name: str = Field(max_length=100)
    shape: list[int] = Field(min_length=1, max_length=2, description="[rows] or [rows, columns].")
    datatype: str = Field(max_length=10, examples=["FP64"])
    parameters: Parameters = {}
    data: list[Any] = Field(description="Numbers, booleans or strings; flat, or by row.")


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: str = Field(max_length=100)
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """An inference request. Unknown members are passed over, as the protocol's clients expect."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(default=None, max_length=200, description="Given back in the answer.")
    parameters: Parameters = {}
    inputs: Annotated[list[InputTensor], FailFast()] = Field(min_length=1, max_length=1000)
    outputs: Annotated[list[WantedOutput], FailFast()] = Field(
        default=[], max_length=100, description="Left out: all outputs."
    )


class TensorMetadata(BaseModel):
    """Name, datatype and shape of a tensor; -1 is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class OutputTensor(TensorMetadata):
    """An output, its data flat in row-major order."""

    data: list[float] | list[str]


class InferResponse(BaseModel):
    """The outputs of an inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def inputs_of(model: Model) -> list[TensorMetadata]:
    """Return the metadata of a model's inputs."""
    return [
        TensorMetadata(name=feature.name, datatype=DATATYPES[feature.type], shape=[-1])
        for feature in model.card.features
    ]


def outputs_of(model: Model) -> list[TensorMetadata]:
    """Return the metadata of a model's outputs."""
    if model.card.task == "classification":
        return [
            TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
            TensorMetadata(
                name="probabilities", datatype="FP64", shape=[-1, len(model.card.classes)]
            ),
        ]
    names = ["value", "lower", "upper"] if model.card.interval else ["value"]
    return [TensorMetadata(name=name, datatype="FP64", shape=[-1]) for name in names]


def check_outputs(model: Model, wanted: list[WantedOutput]) -> list[str]:
    """Return the names of the outputs to answer.

    Raises:
        Problem: 422, there is no such output.
    """
    known = [each.name for each in outputs_of(model)]
    for position, each in enumerate(wanted):
        if each.name not in known:
            told = f"there is no output {each.name}; there are {', '.join(known)}"
            raise refused([("outputs", position, "name")], told)
    return list(dict.fromkeys(each.name for each in wanted)) or known


def write(model: Model, outputs: Outputs, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the asked outputs as tensors."""
    written = []
    for name in names:
        if name == "label":
            best = outputs["probabilities"].argmax(axis=1).tolist()
            data: list[Any] = [model.card.classes[winner] for winner in best]
            shape = [len(data)]
        else:
            array = outputs[name]
            data, shape = array.ravel().tolist(), list(array.shape)
        datatype = "BYTES" if name == "label" else "FP64"
        written.append({"name": name, "shape": shape, "datatype": datatype, "data": data})
    return written


def read(rows: Rows, inputs: list[InputTensor]) -> Matrix:
    """Return the rows that these tensors hold.

    Raises:
        Problem: 415 for binary data; 422 for a name, datatype, shape or value that does not fit.
    """
    given: dict[str, tuple[int, InputTensor]] = {}
    for position, tensor in enumerate(inputs):
        if "binary_data_size" in tensor.parameters:
            raise no_binary()
        if tensor.name in given:
            raise refused([("inputs", position, "name")], f"{tensor.name} stands twice")
        given[tensor.name] = (position, tensor)
    if MATRIX in given and MATRIX not in rows.names:
        matrix = _whole(rows, *given.pop(MATRIX), others=bool(given))
    else:
        matrix = _columns(rows, given)
    if errors := rows.errors_in(matrix):
        raise _problem(
            [{**each, "loc": ["body", "inputs", *each["loc"]]} for each in errors],
            f"{errors[0]['loc'][0]}: a value {errors[0]['message']}",
        )
    return matrix


def _columns(rows: Rows, given: dict[str, tuple[int, InputTensor]]) -> Matrix:
    """Put the tensors of the features side by side, defaults where there is none."""
    for name, (position, _) in given.items():
        if name not in rows.names:
            known = ", ".join(rows.names[:20])
            raise refused(
                [("inputs", position, "name")], f"there is no input {name[:70]}; there are {known}"
            )
    first = next(iter(given.values()))[1]
    count = _row_count(first, 0)
    columns = np.empty((count, len(rows.names)), dtype=np.float64)
    for number, feature in enumerate(rows.features):
        if feature.name in given:
            position, tensor = given[feature.name]
            columns[:, number] = _column(feature, position, tensor, count)
        else:
            default = rows.default(feature)
            if default is None:
                raise refused([("inputs", feature.name)], f"the input {feature.name} is missing")
            columns[:, number] = default
    return columns


def _column(feature: Feature, position: int, tensor: InputTensor, count: int) -> list[float]:
    where = ("inputs", position)
    if tensor.datatype not in _ACCEPTED[feature.type]:
        expected = DATATYPES[feature.type]
        raise refused(
            [(*where, "datatype")],
            f"{feature.name} is {expected}; {tensor.datatype} does not fit it",
        )
    if tensor.shape not in ([count], [count, 1]):
        raise refused(
            [(*where, "shape")],
            f"{feature.name} has shape {tensor.shape}; the rows are {count}, so [{count}] is right",
        )
    flat = _flat(tensor, position)
    if feature.type == "category":
        codes = {choice: float(code) for code, choice in enumerate(feature.choices)}
        for row, value in enumerate(flat):
            if value not in codes:
                known = ", ".join(feature.choices[:20])
                raise refused([(*where, "data", row)], f"{feature.name} is one of {known}")
        return [codes[value] for value in flat]
    return [float(value) for value in flat]


def _whole(rows: Rows, position: int, tensor: InputTensor, *, others: bool) -> Matrix:
    """Read one tensor with all features."""
    where = ("inputs", position)
    width = len(rows.names)
    if others:
        raise refused([(*where, "name")], f"{MATRIX} holds every feature; send it alone")
    if tensor.datatype not in _ACCEPTED["number"]:
        raise refused([(*where, "datatype")], f"{MATRIX} is FP64; {tensor.datatype} does not fit")
    count = _row_count(tensor, position)
    if tensor.shape != [count, width]:
        raise refused(
            [(*where, "shape")], f"{MATRIX} has shape {tensor.shape}, not [{count}, {width}]"
        )
    return np.array(_flat(tensor, position), dtype=np.float64).reshape(count, width)


def _row_count(tensor: InputTensor, position: int) -> int:
    if not 1 <= tensor.shape[0] <= MAX_ROWS:
        raise refused(
            [("inputs", position, "shape")],
            f"{tensor.shape[0]} rows; a request holds 1 to {MAX_ROWS}",
        )
    return tensor.shape[0]


def _flat(tensor: InputTensor, position: int) -> list[Any]:
    """Return the elements in row-major order, of the datatype that the tensor says."""
    data, shape = tensor.data, tensor.shape
    where = ("inputs", position, "data")
    width = shape[1] if len(shape) > 1 else 1
    if len(shape) > 1 and data and isinstance(data[0], list):
        if len(data) != shape[0] or any(
            not isinstance(row, list) or len(row) != width for row in data
        ):
            raise refused([where], f"{tensor.name}: the data is not of shape {shape}")
        data = [value for row in data for value in row]
    if len(data) != shape[0] * width:
        raise refused(
            [where],
            f"{tensor.name}: {len(data)} elements do not fill the shape {shape}",
        )
    allowed = _PYTHON.get(tensor.datatype, {int})
    if not {type(value) for value in data} <= allowed:
        raise refused([where], f"{tensor.name}: an element is no {tensor.datatype}")
    told = f"{tensor.name}: an element is outside of {tensor.datatype}"
    if tensor.datatype in _WHOLE:
        low, high = _range(tensor.datatype)
        if min(data) < low or max(data) > high:
            raise refused([where], told)
        if any(abs(value) > MAX_INTEGER for value in data):
            raise refused([where], f"{tensor.name}: an element is beyond 2**53, and not exact here")
    elif float in allowed:
        try:
            return [float(value) for value in data]
        except OverflowError:  # an integer of some hundred digits
            raise refused([where], told) from None
    return data


_PYTHON: dict[str, set[type]] = {
    "FP32": {int, float},
    "FP64": {int, float},
    "BOOL": {bool},
    "BYTES": {str},
}


def _range(datatype: str) -> tuple[int, int]:
    bits = _BITS[datatype]
    if datatype.startswith("U"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def refused(where: list[tuple[str | int, ...]], told: str) -> Problem:
    """Return the 422 problem about one part of the body."""
    errors = [{"loc": ["body", *each], "message": told, "type": "tensor"} for each in where]
    return _problem(errors, told)


def _problem(errors: list[dict[str, Any]], told: str) -> Problem:
    return Problem(422, detail=f"{told}.", type=VALIDATION_TYPE, errors=errors)


def no_binary() -> Problem:
    """Return the problem of the binary tensor extension, which this server does not have."""
    return Problem(
        415,
        detail=(
            "This server has no extension for binary tensors (see GET /v2); send the data as JSON:"
            " in tritonclient, binary_data=False."
        ),
    )
