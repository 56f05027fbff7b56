"""The rows of one model: their schema, made from its card, and the way from JSON to numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, create_model

from predict.card import Feature, ModelCard, Scalar
from predict.settings import MAX_ROWS

Matrix = NDArray[np.float64]

MAX_INTEGER = 2.0**53
"""Beyond it a float is no longer the integer that was sent."""

_MAX_ERRORS = 100


class Rows:
    """Checks rows against the features of a model and turns them into a matrix.

    `schema` is the JSON Schema of one row.
    """

    def __init__(self, card: ModelCard) -> None:
        self.features = tuple(card.features)
        self.names = tuple(feature.name for feature in self.features)
        row = _row_model(card)
        self.schema: dict[str, Any] = row.model_json_schema()
        self._one: TypeAdapter[BaseModel] = TypeAdapter(row)
        self._many: TypeAdapter[list[BaseModel]] = TypeAdapter(
            Annotated[list[row], Field(min_length=1, max_length=MAX_ROWS), FailFast()]  # type: ignore[valid-type, arg-type]  # made at run time
        )
        self._values: Callable[[Any], Any] = attrgetter(*(f"f_{name}" for name in self.names))
        # Numbers go as they are; a category goes by its position.
        self._codes: dict[int, dict[Scalar, int]] = {
            position: {choice: code for code, choice in enumerate(feature.choices)}
            for position, feature in enumerate(self.features)
            if feature.type == "category"
        }

    def read(self, features: Mapping[str, Any] | Sequence[Any]) -> Matrix:
        """Return the matrix of one row, or of a list of 1 to 1000 rows.

        Raises:
            pydantic.ValidationError: in the first row that does not fit, a value is missing,
                unknown, of another type or out of range.
        """
        if isinstance(features, Mapping):
            return self._matrix([self._one.validate_python(features)])
        return self._matrix(self._many.validate_python(features))

    def errors_in(self, matrix: Matrix) -> list[dict[str, Any]]:
        """Return what is wrong with numbers that came as a matrix, as entries of a 422 answer."""
        errors: list[dict[str, Any]] = []
        for position, feature in enumerate(self.features):
            column = matrix[:, position]
            for message, bad in _violations(feature, column):
                errors += [
                    {"loc": [feature.name, int(row)], "message": message, "type": "tensor_value"}
                    for row in np.flatnonzero(bad)[:_MAX_ERRORS]
                ]
        return errors[:_MAX_ERRORS]

    def default(self, feature: Feature) -> float | None:
        """Return the number that stands for a feature that was not given, if it has a default."""
        if feature.default is None:
            return None
        if feature.type == "category":
            return float(feature.choices.index(str(feature.default)))
        return float(feature.default)

    def _matrix(self, rows: Sequence[BaseModel]) -> Matrix:
        if self._codes:
            values = [list(self._tuple(row)) for row in rows]
            for position, codes in self._codes.items():
                for row in values:
                    row[position] = codes[row[position]]
            return np.array(values, dtype=np.float64)
        return np.array([self._tuple(row) for row in rows], dtype=np.float64)

    def _tuple(self, row: BaseModel) -> tuple[Any, ...]:
        found: Any = self._values(row)
        return found if len(self.names) > 1 else (found,)


def _row_model(card: ModelCard) -> type[BaseModel]:
    # A feature may be called `json` or `copy`: inside, each name has a prefix.
    fields: dict[str, Any] = {
        f"f_{feature.name}": (_type(feature), _field(feature)) for feature in card.features
    }
    title = f"{card.name}-{card.version}"
    return create_model(
        "Row",
        __config__=ConfigDict(extra="forbid", strict=True, title=title, validate_default=True),
        **fields,
    )


def _type(feature: Feature) -> Any:
    match feature.type:
        case "number":
            return float
        case "integer":
            return int
        case "boolean":
            return bool
        case "category":
            return Literal[tuple(feature.choices)]


def _field(feature: Feature) -> Any:
    told: dict[str, Any] = {"alias": feature.name}
    if feature.type in {"number", "integer"}:
        low, high = _bounds(feature)
        told |= {"ge": low, "le": high}
    if feature.type == "number":
        told["allow_inf_nan"] = False
    if feature.description:
        told["description"] = feature.description
    if feature.unit:
        told["json_schema_extra"] = {"x-unit": feature.unit}
    return Field(default=... if feature.default is None else feature.default, **told)


def _bounds(feature: Feature) -> tuple[float | None, float | None]:
    bound = MAX_INTEGER if feature.type == "integer" else None
    low = feature.min if feature.min is not None else bound and -bound
    return low, feature.max if feature.max is not None else bound


def _violations(feature: Feature, column: Matrix) -> list[tuple[str, NDArray[np.bool_]]]:
    found: list[tuple[str, NDArray[np.bool_]]] = [("is not finite", ~np.isfinite(column))]
    low, high = _bounds(feature)
    if feature.type == "boolean":
        low, high = 0.0, 1.0
    elif feature.type == "category":
        low, high = 0.0, float(len(feature.choices) - 1)
    if feature.type != "number":
        found.append(("is not a whole number", np.isfinite(column) & (column != np.floor(column))))
    if low is not None:
        found.append((f"is less than {low:g}", column < low))
    if high is not None:
        found.append((f"is more than {high:g}", column > high))
    return found
