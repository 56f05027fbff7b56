"""Drift: rows like those of the training are quiet, shifted ones are not, few ones say nothing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chassis.testing import FakeClock
from predict.card import ModelCard
from predict.drift import DriftLimits, DriftWindow

CARD = ModelCard.model_validate(
    {
        "name": "m", "version": "1", "file": "model.onnx", "sha256": "0" * 64,
        "task": "regression", "features": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
        "example": {"a": 0.0},
        "training": {
            "features": {
                "a": {"edges": [-0.67449, 0.0, 0.67449], "shares": [0.25] * 4},
                "c": {"edges": [0.5], "shares": [0.2, 0.8]},
            }
        },
    }
)  # fmt: skip


def window(clock: FakeClock, **limits: float) -> DriftWindow:
    values: dict[str, Any] = {"rows": 1000, "seconds": 3600, "min_rows": 100, **limits}
    return DriftWindow(CARD, DriftLimits(**values), clock)


def rows(count: int, shift: float = 0.0, share: float = 0.8) -> Any:
    random = np.random.default_rng(7)
    a = random.normal(shift, 1, count)
    c = (np.arange(count) < share * count).astype(float)
    return np.column_stack([a, np.zeros(count), c])


def test_the_index_of_a_shift_is_what_it_is_by_hand(fake_clock: FakeClock) -> None:
    """Half of the rows where a fifth was: (0.5-0.2)ln(0.5/0.2) + (0.5-0.8)ln(0.5/0.8)."""
    seen = window(fake_clock)
    found = seen.indices(rows(1000, share=0.5))
    assert found["c"] == pytest.approx(0.3 * np.log(2.5) - 0.3 * np.log(0.625))
    assert seen.indices(rows(1000))["c"] == pytest.approx(0)
    assert set(found) == {"a", "c"}


def test_the_same_rows_are_quiet_and_shifted_ones_are_loud(fake_clock: FakeClock) -> None:
    """Below 0.1 and above 0.2, by the custom that the alert follows; an empty bin is no error."""
    seen = window(fake_clock)
    assert seen.indices(rows(1000))["a"] < 0.05
    assert seen.indices(rows(1000, shift=0.7))["a"] > 0.2
    assert 1 < seen.indices(rows(1000, shift=50.0))["a"] < 20


def test_the_window_is_bounded_by_rows_and_by_age(fake_clock: FakeClock) -> None:
    """Old rows leave it, whichever bound they meet; below the minimum it says nothing."""
    seen = window(fake_clock, rows=300)
    seen.add(rows(99))
    assert seen.snapshot() is None
    for _ in range(10):
        seen.add(rows(100))
    kept = seen.snapshot()
    assert kept is not None
    assert len(kept) == 300
    fake_clock.advance(3601)
    assert seen.snapshot() is None
    seen.add(rows(150))
    kept = seen.snapshot()
    assert kept is not None
    assert len(kept) == 150


async def test_the_gauges_follow_what_is_asked_for(samples: Any, helpers: Any) -> None:
    """Patients who are all of one age: that feature drifts, after enough of them, and no other."""
    rng = np.random.default_rng(1)
    gauge = 'predict_feature_drift{feature="%s",model="wine-cultivar",version="1"}'
    settings = {"drift_min_rows": 200, "rescan_seconds": 5}
    async with samples.client(**settings) as client:

        async def ask(count: int) -> None:
            # Hue and proline as in training, roughly; alcohol far above.
            features = [
                {
                    "alcohol": 15.5,
                    "proline": float(np.clip(rng.lognormal(6.5, 0.42), 300, 1600)),
                    "hue": float(np.clip(rng.normal(0.96, 0.23), 0.5, 1.7)),
                }
                for _ in range(count)
            ]
            body = {"model": "wine-cultivar", "features": features}
            assert (await client.post("/v1/predict", json=body)).status_code == 200

        async def measured() -> None:
            await samples.clock.wait_for_sleepers(1)
            samples.clock.advance(5)
            async with asyncio.timeout(60):
                await samples.clock.wait_for_sleepers(1)

        await ask(199)
        await measured()
        assert await helpers.metric(client, gauge % "alcohol") is None
        await ask(301)
        await measured()
        assert await helpers.metric(client, gauge % "alcohol") > 1
        assert await helpers.metric(client, gauge % "proline") < 0.2
        assert await helpers.metric(client, gauge % "hue") < 0.2
        samples.clock.advance(4000)
        await measured()
        assert await helpers.metric(client, gauge % "alcohol") is None


_PROCESS = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from predict.metrics import PredictMetrics

metrics = PredictMetrics(CollectorRegistry())
for version in ("1", "2"):
    of = metrics.of("m", version)
    of.drifted("a", 0.75)
    of.answered("ok", 3, 0.1)
of.no_drift()
metrics.of("m", "3").no_drift()
metrics.forget("m", "1")
gathered = CollectorRegistry()
MultiProcessCollector(gathered)
print(generate_latest(gathered).decode())
"""


def test_drift_that_several_processes_told_of_becomes_0(tmp_path: Path) -> None:
    """They share files, out of which no series can be taken: an alert would go on for ever."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROCESS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("predict_feature_drift{")]
    assert told == [
        'predict_feature_drift{feature="a",model="m",version="1"} 0.0',
        'predict_feature_drift{feature="a",model="m",version="2"} 0.0',
    ]
