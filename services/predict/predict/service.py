"""What one process of predict holds: the registry, its threads, the loop that looks for models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import Depends, Request
from pydantic import ValidationError

from chassis import Problem, Runtime, RuntimeDep, SettingsError, get_runtime
from chassis.problems import validation_problem
from predict.batcher import BatchLimits, ExpiredError, QueueFullError
from predict.drift import DriftLimits
from predict.features import Matrix
from predict.metrics import PredictMetrics
from predict.model import Loaded, Model
from predict.registry import Registry, UnavailableModelError, UnknownModelError
from predict.runtimes import Limits, ModelError, Outputs
from predict.settings import Settings
from predict.sources import SourceError, source_of

UNKNOWN_TYPE = "urn:slipway:problem:unknown-model"
UNAVAILABLE_TYPE = "urn:slipway:problem:model-unavailable"
OVERLOADED_TYPE = "urn:slipway:problem:overloaded"
EXPIRED_TYPE = "urn:slipway:problem:deadline-exceeded"
FAILED_TYPE = "urn:slipway:problem:model-failed"

_MAX_DESCRIBED = 500


class Predictor:
    """The models of one application and the threads that load and compute them."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        assert isinstance(settings, Settings)
        self._settings = settings
        self._clock = runtime.clock
        self._metrics = PredictMetrics(runtime.registry)
        self._loading = ThreadPoolExecutor(settings.load_threads, "predict-load")
        self._computing = ThreadPoolExecutor(settings.run_threads, "predict-run")
        self._source = source_of(settings)
        self.registry = Registry(
            self._source,
            make=self._model,
            limits=Limits(settings.max_model_bytes, settings.intra_threads, settings.skops_trusted),
            executor=self._loading,
            at_once=settings.load_threads,
            metrics=self._metrics,
            clock=runtime.clock,
            default=settings.default_model,
        )

    def _model(self, loaded: Loaded) -> Model:
        settings = self._settings
        return Model(
            loaded,
            executor=self._computing,
            batches=BatchLimits(
                settings.batch_rows, settings.queue_rows, settings.batch_delay_seconds
            ),
            drift=DriftLimits(
                settings.drift_window_rows,
                settings.drift_window_seconds,
                settings.drift_min_rows,
            ),
            clock=self._clock,
            metrics=self._metrics,
        )

    async def begin(self) -> None:
        """Load what there is, before the process is ready.

        Raises:
            SettingsError: there is nothing to serve. The process ends, a rollout halts at it, and
                whoever served before serves on.
        """
        try:
            await self.registry.look()
        except SourceError as error:
            raise SettingsError(
                f"PREDICT_MODELS: {error}; give a directory or an index that can be read"
            ) from None
        if not self.registry.models:
            reasons = "; ".join(f"{q.where}: {q.detail}" for q in self.registry.quarantine)
            raise SettingsError(
                f"PREDICT_MODELS: no model could be loaded ({reasons or 'there is none'});"
                " see docs/models.md for what a model needs"
            )

    async def run(self) -> None:
        """Look for changed models and measure drift, for ever."""
        while True:
            await self._clock.sleep(self._settings.rescan_seconds)
            with suppress(SourceError):  # told by log and counter; what is loaded serves on
                await self.registry.look()
            await self.measure_drift()

    async def measure_drift(self) -> None:
        """Set the gauges of drift from the rows of the last time."""
        for versions in list(self.registry.models.values()):
            for model in list(versions.values()):
                rows = model.drift.snapshot()
                if rows is None:
                    model.metrics.no_drift()
                    continue
                indices = await asyncio.to_thread(model.drift.indices, rows)
                if not self.registry.serves(model):
                    continue  # taken away meanwhile: its series are gone and stay so
                for feature, value in indices.items():
                    model.metrics.drifted(feature, value)

    async def close(self) -> None:
        """Let the threads and connections end; what they compute now nobody waits for."""
        self._loading.shutdown(wait=False, cancel_futures=True)
        self._computing.shutdown(wait=False, cancel_futures=True)
        await self._source.close()


@asynccontextmanager
async def setup(runtime: Runtime) -> AsyncIterator[None]:
    """Hold a `Predictor` while the service runs."""
    predictor = Predictor(runtime)
    try:
        await predictor.begin()
        runtime.extras["predictor"] = predictor
        yield
    finally:
        await predictor.close()


def predictor_of(runtime: Runtime) -> Predictor:
    """Return the predictor of this application."""
    predictor = runtime.extras["predictor"]
    assert isinstance(predictor, Predictor)
    return predictor


async def watch(runtime: Runtime) -> None:
    """Run the loop of this application."""
    await predictor_of(runtime).run()


def registry_of(request: Request) -> Registry:
    """Return the registry of the application that serves `request`.

    What answers predictions calls it: as a dependency it would cost more than the prediction.
    """
    return predictor_of(get_runtime(request)).registry


async def _registry(runtime: RuntimeDep) -> Registry:
    return predictor_of(runtime).registry


RegistryDep = Annotated[Registry, Depends(_registry)]


def find(registry: Registry, name: str | None, version: str | None) -> Model:
    """Return a model, or raise the problem that says why there is none: 404 or 503."""
    try:
        return registry.find(name, version)
    except UnknownModelError as error:
        raise Problem(404, detail=str(error), type=UNKNOWN_TYPE) from None
    except UnavailableModelError as error:
        raise Problem(
            503, detail=str(error), type=UNAVAILABLE_TYPE, headers={"Retry-After": "30"}
        ) from None


def invalid(error: ValidationError, *below: str) -> Problem:
    """Return the problem of a body, or of what lies `below` in it, that does not fit.

    Many errors are only counted: to describe them all takes seconds, on the event loop.
    """
    count = error.error_count()
    if count > _MAX_DESCRIBED:
        told = f"{count} things do not fit; too many to name them"
        return validation_problem([{"loc": ["body", *below], "msg": told, "type": "too_many"}])
    found = error.errors(include_url=False, include_input=False)
    return validation_problem([{**each, "loc": ["body", *below, *each["loc"]]} for each in found])


async def compute(model: Model, rows: Matrix) -> Outputs:
    """Predict, or raise the problem that says why not: 500, 503 or 504."""
    name = f"{model.card.name} {model.card.version}"
    try:
        return await model.predict(rows)
    except QueueFullError:
        raise Problem(
            503,
            detail=f"Too many rows wait for {name}; try again in a moment.",
            type=OVERLOADED_TYPE,
            headers={"Retry-After": "1"},
        ) from None
    except ExpiredError:
        raise Problem(
            504, detail=f"The time of the request was over before {name} had computed it.",
            type=EXPIRED_TYPE,
        ) from None  # fmt: skip
    except ModelError as error:
        raise Problem(
            500, detail=f"{name} failed on these rows: {error}.", type=FAILED_TYPE
        ) from None
