"""Settings of predict. Environment prefix `PREDICT_`; everything else is the chassis'."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from chassis.settings import ServiceSettings, settings_config

MAX_ROWS = 1000
"""The most rows of one request, whatever the settings say: it stands in the API document."""

_SCHEMES = frozenset({"file", "http", "https"})
_GUARDED = frozenset({"staging", "production"})


class Settings(ServiceSettings):
    """What predict can be told. Durations are in seconds."""

    model_config = settings_config("predict")

    service_name: str = "predict"

    models: str = ""
    """Where the models are: a directory, or the URL (https, http, file) of an `index.json`.
    Empty: the sample models of the package."""

    default_model: str = "diabetes-progression"
    """What a request means that names no model, where there is more than one."""

    rescan_seconds: PositiveFloat = 10.0
    load_threads: PositiveInt = 2
    max_models: PositiveInt = 100
    max_model_bytes: PositiveInt = 256 * 1_048_576
    fetch_seconds: PositiveFloat = 30.0
    """The longest that one file of a URL may take."""

    skops_trusted: tuple[str, ...] = ()
    """Types that a .skops file may hold besides those that skops itself trusts, by full name."""

    run_threads: PositiveInt = 1
    """Batches that compute at once, over all models; more than one needs more than one core."""
    intra_threads: PositiveInt = 1
    """Threads inside one computation."""
    batch_rows: PositiveInt = 256
    batch_delay_seconds: float = Field(default=0.0, ge=0.0, le=0.1)
    """How long a batch that is not full waits for more. Without a wait, what arrives while one
    batch computes is the next batch: idle, nothing waits; loaded, batches grow by themselves."""
    queue_rows: int = Field(default=4096, ge=MAX_ROWS)
    """Rows that may wait for one model; more is answered 503."""

    drift_window_rows: PositiveInt = 5000
    drift_window_seconds: PositiveFloat = 3600.0
    drift_min_rows: PositiveInt = 500
    """Below this many rows in the window nothing is said about drift."""

    @property
    def models_are_remote(self) -> bool:
        """Say whether `models` is a URL."""
        return "://" in self.models

    @field_validator("models")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if "://" in value:
            parts = urlsplit(value)
            named = bool(parts.path if parts.scheme == "file" else parts.hostname)
            if parts.scheme not in _SCHEMES or not named:
                raise ValueError(
                    "not a URL of an index; give a directory, or a URL such as"
                    " https://models.internal/index.json"
                )
        return value

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        # A checksum from the same plain connection proves nothing about who sent the model.
        if self.environment in _GUARDED and self.models.startswith("http://"):
            raise ValueError(f"models over http are refused in {self.environment}; use https")
        return self
