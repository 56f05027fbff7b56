"""What Prometheus is told. Labels are bounded by the models that are loaded."""

from __future__ import annotations

import os
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chassis.metrics import SHARED_DIRECTORY
from predict.runtimes import REASONS

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)

Outcome = Literal["ok", "invalid", "overloaded", "expired", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "invalid", "overloaded", "expired", "failed")

_MODEL = ("model", "version")


class PredictMetrics:
    """The instruments of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Several processes count through files, from which nothing can be taken out.
        self._shared = SHARED_DIRECTORY in os.environ
        self._drifted: set[tuple[str, str, str]] = set()
        self.latency = Histogram(
            "predict_latency_seconds",
            "Time from a checked request to its predictions, waiting included.",
            _MODEL,
            buckets=LATENCY,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "predict_queue_wait_seconds",
            "Time that a request waited for its batch to begin.",
            _MODEL,
            buckets=WAITS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "predict_batch_rows",
            "Rows that were computed together.",
            _MODEL,
            buckets=ROWS,
            registry=registry,
        )
        self.predictions = Counter(
            "predictions_total",
            "Predictions that were asked for, in rows; a request that is not valid counts one.",
            (*_MODEL, "outcome"),
            registry=registry,
        )
        self.drift = Gauge(
            "predict_feature_drift",
            "Population stability index of a feature against training; 0.2 is a shift.",
            (*_MODEL, "feature"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.loaded = Gauge(
            "predict_models_loaded",
            "Versions of models that serve.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.quarantined = Gauge(
            "predict_models_quarantined",
            "Models that were refused and are not served as they are stored.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.load_failures = Counter(
            "predict_model_load_failures_total",
            "Loads of a model that failed.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self.load_failures.labels(reason)
        self.scan_failures = Counter(
            "predict_model_scan_failures_total",
            "Looks at where the models are that failed; what was loaded serves on.",
            registry=registry,
        )

    def of(self, model: str, version: str) -> ModelMetrics:
        """Return the series of one version."""
        return ModelMetrics(self, model, version)

    def forget(self, model: str, version: str) -> None:
        """Remove the series of a version that is no longer served, where that can be done."""
        self.no_drift(model, version)
        if self._shared:
            return
        for histogram in (self.latency, self.queue_wait, self.batch_rows):
            histogram.remove(model, version)
        for outcome in OUTCOMES:
            self.predictions.remove(model, version, outcome)

    def drifted(self, model: str, version: str, feature: str, value: float) -> None:
        """Say how far a feature is from training."""
        self._drifted.add((model, version, feature))
        self.drift.labels(model, version, feature).set(value)

    def no_drift(self, model: str, version: str) -> None:
        """Say nothing about drift; 0 where it was said and cannot be taken back.

        An old value would look like a new one, and raise an alert for ever.
        """
        for told in [each for each in self._drifted if each[:2] == (model, version)]:
            if self._shared:
                self.drift.labels(*told).set(0)
            else:
                self._drifted.remove(told)
                self.drift.remove(*told)


class ModelMetrics:
    """The series of one version, looked up once: a request is the hot path."""

    def __init__(self, metrics: PredictMetrics, model: str, version: str) -> None:
        self._latency = metrics.latency.labels(model, version)
        self.waited = metrics.queue_wait.labels(model, version).observe
        self.batch = metrics.batch_rows.labels(model, version).observe
        self._outcomes = {
            outcome: metrics.predictions.labels(model, version, outcome) for outcome in OUTCOMES
        }
        self._metrics = metrics
        self._labels = (model, version)

    def answered(self, outcome: Outcome, rows: int, seconds: float | None = None) -> None:
        """Count the predictions of one request; `seconds` only when it was computed."""
        self._outcomes[outcome].inc(rows)
        if seconds is not None:
            self._latency.observe(seconds)

    def drifted(self, feature: str, value: float) -> None:
        """Say how far a feature is from training."""
        self._metrics.drifted(*self._labels, feature, value)

    def no_drift(self) -> None:
        """Say nothing about drift: too few rows, or another file of this version."""
        self._metrics.no_drift(*self._labels)
