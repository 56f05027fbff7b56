"""What clients of v1 send and get."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from predict.card import Feature, Interval
from predict.model import Model
from predict.registry import Quarantined, Registry
from predict.settings import MAX_ROWS


class PredictRequest(BaseModel):
    """Rows for one model; which features it takes is in `GET /v1/models`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, max_length=100, description="Else the default model.")
    version: str | None = Field(default=None, max_length=100, description="Else the newest.")
    features: dict[str, Any] | list[Any] = Field(
        description=f"One row by name of feature, or a list of 1 to {MAX_ROWS}. Left out: default."
    )


class IntervalShown(BaseModel):
    """Where the true value lies with the probability `level`."""

    lower: float
    upper: float
    level: float


class Prediction(BaseModel):
    """A value, or a label with the probability of each class."""

    value: float | None = None
    interval: IntervalShown | None = Field(default=None, description="If the model has one.")
    label: str | None = None
    probabilities: dict[str, float] | None = None


class Predictions(BaseModel):
    """The predictions of one request, in the order of its rows."""

    model: str = Field(examples=["diabetes-progression"])
    version: str = Field(description="The version that computed them.", examples=["1"])
    predictions: list[Prediction]


class ModelShown(BaseModel):
    """One version of a model."""

    name: str
    version: str
    newest: bool = Field(description="Whether it is what a request without a version gets.")
    description: str
    task: Literal["regression", "classification"]
    platform: str
    sha256: str
    loaded_at: datetime
    unit: str
    features: list[Feature]
    schema_: dict[str, Any] = Field(alias="schema", description="The JSON Schema of one row.")
    classes: list[str]
    interval: Interval | None
    example: dict[str, Any]
    metrics: dict[str, float]

    @classmethod
    def of(cls, model: Model, *, newest: bool) -> ModelShown:
        """Show a model."""
        card = model.card
        return cls(
            name=card.name,
            version=card.version,
            newest=newest,
            description=card.description,
            task=card.task,
            platform=model.platform,
            sha256=card.sha256,
            loaded_at=model.loaded_at,
            unit=card.unit,
            features=card.features,
            schema=model.rows.schema,
            classes=card.classes,
            interval=card.interval,
            example=card.example,
            metrics=card.metrics,
        )


class QuarantinedShown(BaseModel):
    """Something that was refused, and is tried again when its files change."""

    where: str = Field(examples=["diabetes-progression/2", "old/model.pkl"])
    reason: str = Field(examples=["checksum"])
    detail: str
    since: datetime
    serving: bool = Field(description="Whether an older file of this very version serves on.")

    @classmethod
    def of(cls, refused: Quarantined) -> QuarantinedShown:
        """Show it."""
        return cls(
            where=refused.where,
            reason=refused.reason,
            detail=refused.detail,
            since=refused.since,
            serving=refused.serving,
        )


class ModelsShown(BaseModel):
    """Everything that serves, and what was refused."""

    default: str | None = Field(description="The model of a request that names none.")
    models: list[ModelShown]
    quarantine: list[QuarantinedShown]

    @classmethod
    def of(cls, registry: Registry) -> ModelsShown:
        """Show the table of a process."""
        return cls(
            default=registry.default,
            models=[
                ModelShown.of(model, newest=model is registry.newest(name))
                for name, versions in registry.models.items()
                for model in versions.values()
            ],
            quarantine=[QuarantinedShown.of(each) for each in registry.quarantine],
        )


class ChangesShown(BaseModel):
    """What a look at the models has changed."""

    loaded: list[str]
    refused: list[str]
    removed: list[str]
