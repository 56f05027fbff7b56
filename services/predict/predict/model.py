"""One version of a model that serves: its card, its rows, its queue and its drift."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from chassis.clock import Clock
from chassis.http.deadline import current_deadline
from predict.batcher import Batcher, BatchLimits, ExpiredError, QueueFullError
from predict.card import ConformalInterval, ModelCard
from predict.drift import DriftLimits, DriftWindow
from predict.features import Matrix, Rows
from predict.metrics import ModelMetrics, PredictMetrics
from predict.runtimes import Limits, LoadError, ModelError, Outputs, Run, build

_ROUNDING = 1e-3

PLATFORMS = {"model.onnx": "onnx_onnxv1", "model.skops": "sklearn_skops"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that was read, built and tried, and that does not serve yet."""

    card: ModelCard
    rows: Rows
    run: Run


def load(card_text: bytes, content: bytes, where: tuple[str, str], limits: Limits) -> Loaded:
    """Build a model and try it on the example of its card; blocking, for a thread.

    `where` is the name and the version that its place says.

    Raises:
        LoadError: anything at all is wrong with it.
    """
    card = read_card(card_text)
    if (card.name, card.version) != where:
        raise LoadError("card", f"model.json says {card.name}/{card.version}; its place does not")
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        raise LoadError(
            "checksum",
            f"{card.file} is not the file that model.json describes: sha256 {digest[:12]}...,"
            f" not {card.sha256[:12]}... (half written, or another file)",
        )
    rows = Rows(card)
    run = _with_interval(card, build(card, content, limits))
    _try(card, rows, run)
    return Loaded(card, rows, run)


def read_card(text: bytes) -> ModelCard:
    """Return what `model.json` says.

    Raises:
        LoadError: it is no JSON (half written, perhaps), or breaks the schema.
    """
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise LoadError("card", f"model.json: {at}: {first['msg']}".replace(": : ", ": ")) from None


def _with_interval(card: ModelCard, run: Run) -> Run:
    interval = card.interval
    if not isinstance(interval, ConformalInterval):
        return run
    width = interval.half_width

    def bounded(matrix: Matrix) -> Outputs:
        value = run(matrix)["value"]
        return {"value": value, "lower": value - width, "upper": value + width}

    return bounded


def _try(card: ModelCard, rows: Rows, run: Run) -> None:
    """Predict the example: a model that cannot is no model, and the first call is the slow one."""
    try:
        rows.read(card.example)
        # Every default must be a value that a caller could have sent.
        defaults = {f.name: f.default for f in card.features if f.default is not None}
        matrix = rows.read([card.example, {**card.example, **defaults}])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise LoadError(
            "card", f"the example or a default: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    try:
        outputs = run(matrix)
    except Exception as error:  # noqa: BLE001  (whatever a model raises)
        raise LoadError("check", f"the example failed: {type(error).__name__}: {error}") from None
    for name, array in outputs.items():
        shape = (2, len(card.classes)) if name == "probabilities" else (2,)
        if array.shape != shape:
            raise LoadError("check", f"the example gave {name} of shape {array.shape}, not {shape}")
        if not np.isfinite(array).all():
            raise LoadError("check", f"the example gave a {name} that is not finite")
        if name == "probabilities" and not _are_probabilities(array):
            raise LoadError(
                "check",
                "the example gave probabilities that are not from 0 to 1 with the sum 1; are they"
                " scores?",
            )


def _are_probabilities(array: NDArray[np.float64]) -> bool:
    # A graph computes with 32 bits as a rule.
    inside = (array >= -_ROUNDING) & (array <= 1 + _ROUNDING)
    return bool(inside.all() and (np.abs(array.sum(axis=1) - 1) <= _ROUNDING).all())


class Model:
    """A version in service. It is never changed: another file makes another `Model`."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        executor: Executor,
        batches: BatchLimits,
        drift: DriftLimits,
        clock: Clock,
        metrics: PredictMetrics,
    ) -> None:
        self.card = loaded.card
        self.rows = loaded.rows
        self.loaded_at: datetime = clock.now()
        self._clock = clock
        self.metrics: ModelMetrics = metrics.of(self.card.name, self.card.version)
        self.drift = DriftWindow(self.card, drift, clock)
        self.batcher = Batcher(
            loaded.run, executor=executor, limits=batches, clock=clock, metrics=self.metrics
        )

    @property
    def platform(self) -> str:
        """The runtime, as the Open Inference Protocol names such things."""
        return PLATFORMS[self.card.file]

    async def predict(self, rows: Matrix) -> Outputs:
        """Compute checked rows within the deadline of the request, and count them.

        Raises:
            QueueFullError, ExpiredError, ModelError: see `Batcher.submit`.
        """
        began = self._clock.monotonic()
        try:
            outputs = await self.batcher.submit(rows, current_deadline())
        except QueueFullError:
            self.metrics.answered("overloaded", len(rows))
            raise
        except ExpiredError:
            self.metrics.answered("expired", len(rows))
            raise
        except ModelError:
            self.metrics.answered("failed", len(rows))
            raise
        self.metrics.answered("ok", len(rows), self._clock.monotonic() - began)
        self.drift.add(rows)
        return outputs

    def shown(self, outputs: Outputs) -> list[dict[str, Any]]:
        """Return predictions as JSON: values with their interval, or labels with probabilities."""
        card = self.card
        if card.task == "classification":
            probabilities = outputs["probabilities"]
            best = probabilities.argmax(axis=1).tolist()
            return [
                {
                    "label": card.classes[winner],
                    "probabilities": dict(zip(card.classes, row, strict=True)),
                }
                for winner, row in zip(best, probabilities.tolist(), strict=True)
            ]
        values = outputs["value"].tolist()
        if card.interval is None:
            return [{"value": value} for value in values]
        level = card.interval.level
        bounds = zip(values, outputs["lower"].tolist(), outputs["upper"].tolist(), strict=True)
        return [
            {"value": value, "interval": {"lower": lower, "upper": upper, "level": level}}
            for value, lower, upper in bounds
        ]
