"""`model.json`: what a model takes and gives, how it was trained, and the checksum of its file.

It stands beside the model's file and is written by whoever trained it; `docs/models.md` tells how.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[a-z][a-z0-9-]{0,62}$"
VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
MAX_FEATURES = 500

FeatureType = Literal["number", "integer", "boolean", "category"]
Scalar = bool | int | float | str
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Feature(_Part):
    """One input. The model gets a number: 0 or 1 for a boolean, the position for a category."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
    type: FeatureType = "number"
    description: str = ""
    unit: str = ""
    default: Scalar | None = Field(default=None, description="Without one it must be given.")
    min: Finite | None = None
    max: Finite | None = None
    choices: list[str] = Field(default=[], max_length=1000, description="Of a category.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.type == "category") != bool(self.choices):
            raise ValueError("choices are for a category, and a category needs them")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("a choice stands twice")
        if self.type in {"boolean", "category"} and (self.min is not None or self.max is not None):
            raise ValueError("min and max are for numbers")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is more than max")
        return self


class ConformalInterval(_Part):
    """The value plus and minus what `level` of the held-out errors stayed below."""

    method: Literal["split-conformal"]
    level: float = Field(gt=0, lt=1)
    half_width: float = Field(ge=0, allow_inf_nan=False)
    coverage: float | None = Field(
        default=None, ge=0, le=1, description="Share of rows inside, measured on rows kept apart."
    )


class QuantileInterval(_Part):
    """Bounds that the model computes itself, as two more outputs (ONNX only)."""

    method: Literal["quantiles"]
    level: float = Field(gt=0, lt=1)
    lower: str = Field(min_length=1)
    upper: str = Field(min_length=1)
    coverage: float | None = Field(default=None, ge=0, le=1)


Interval = Annotated[ConformalInterval | QuantileInterval, Field(discriminator="method")]


class Distribution(_Part):
    """How a feature was spread in training: the share of rows between each two edges.

    A row is in bin i when i edges are less than or equal to its value, so there is one share more
    than there are edges.
    """

    edges: list[Finite] = Field(min_length=1, max_length=100)
    shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=2, max_length=101)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("there must be one share more than edges")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must rise")
        if abs(sum(self.shares) - 1) > 0.01:  # noqa: PLR2004  (they are rounded)
            raise ValueError("shares must add up to 1")
        return self


class Training(_Part):
    """What the model was trained on."""

    data: str = ""
    rows: int | None = Field(default=None, ge=1)
    libraries: dict[str, str] = {}
    features: dict[str, Distribution] = {}


class ModelCard(_Part):
    """The whole of `model.json`."""

    name: str = Field(pattern=NAME)
    version: str = Field(pattern=VERSION)
    description: str = ""
    file: Literal["model.onnx", "model.skops"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    task: Literal["regression", "classification"]
    unit: str = Field(default="", description="Of the value, with regression.")
    features: list[Feature] = Field(min_length=1, max_length=MAX_FEATURES)
    classes: list[str] = Field(default=[], max_length=1000, description="With classification.")
    output: str | None = Field(
        default=None,
        description="The ONNX output that holds the value or the probabilities; else the last.",
    )
    interval: Interval | None = None
    example: dict[str, Scalar] = Field(description="A row to try the model with before it serves.")
    training: Training = Training()
    metrics: dict[str, float] = {}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = {feature.name for feature in self.features}
        if len(names) != len(self.features):
            raise ValueError("a feature stands twice")
        if unknown := sorted({*self.training.features} - names):
            raise ValueError(f"training.features: {unknown[0]} is no feature")
        if (self.task == "classification") != bool(self.classes):
            raise ValueError("classes are for a classification, and it needs them")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise ValueError("classes must be two or more, each once")
        if self.interval is not None and self.task != "regression":
            raise ValueError("an interval is for a regression")
        if self.file == "model.skops" and isinstance(self.interval, QuantileInterval):
            raise ValueError("a .skops model has one output; use a split-conformal interval")
        return self

    def feature(self, name: str) -> Feature:
        """Return one feature; `KeyError` if there is none of this name."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)
