"""Feature drift: are the rows of today like those of the training?

The population stability index of a feature is the sum over the bins of the card of
(now - then) * ln(now / then), shares of rows each. By custom, below 0.1 nothing happened and above
0.2 the feature has shifted. It looks at the last rows only: bounded by number and by age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chassis.clock import Clock
from predict.card import ModelCard
from predict.features import Matrix

_EMPTY = 1e-4
"""The share that stands for an empty bin: the logarithm of 0 is no number."""


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """The window: at most `rows`, none older than `seconds`, no result below `min_rows`."""

    rows: int
    seconds: float
    min_rows: int


class DriftWindow:
    """The last rows that one version was asked about."""

    def __init__(self, card: ModelCard, limits: DriftLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._window: deque[tuple[float, Matrix]] = deque()
        self._rows = 0
        self._expected = {
            feature.name: (position, np.array(known.edges), np.array(known.shares))
            for position, feature in enumerate(card.features)
            if (known := card.training.features.get(feature.name)) is not None
        }

    def add(self, rows: Matrix) -> None:
        """Take rows that were predicted."""
        if not self._expected:
            return
        self._window.append((self._clock.monotonic(), rows))
        self._rows += len(rows)
        while self._rows - len(self._window[0][1]) >= self._limits.rows:
            self._rows -= len(self._window.popleft()[1])

    def snapshot(self) -> Matrix | None:
        """Return the rows of the window, or None while they are too few to say anything."""
        oldest = self._clock.monotonic() - self._limits.seconds
        while self._window and self._window[0][0] < oldest:
            self._rows -= len(self._window.popleft()[1])
        if self._rows < max(self._limits.min_rows, 1):
            return None
        return np.concatenate([rows for _, rows in self._window])

    def indices(self, rows: Matrix) -> Mapping[str, float]:
        """Return the index of each known feature over `rows`; pure, and may run in a thread."""
        return {
            name: _index(rows[:, position], edges, shares)
            for name, (position, edges, shares) in self._expected.items()
        }


def _index(column: Matrix, edges: Matrix, expected: Matrix) -> float:
    bins = np.searchsorted(edges, column, side="right")
    now = np.bincount(bins, minlength=len(expected)) / len(column)
    now, then = np.maximum(now, _EMPTY), np.maximum(expected, _EMPTY)
    return float(np.sum((now - then) * np.log(now / then)))
