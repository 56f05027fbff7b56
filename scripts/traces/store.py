"""The last traces, in memory and bounded: the oldest goes when a new one needs its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from scripts.traces.spans import Span

TRACES = 200
SPANS = 2000

_QUIET_SECONDS = 2.0
# Exporters send in batches, Envoy each 5 s: a parent that is missing may still come.
_PATIENCE_SECONDS = 7.0


@dataclass
class Trace:
    """The spans of one trace that have arrived. `touched` is by the monotonic clock."""

    id: str
    touched: float
    spans: dict[str, Span] = field(default_factory=dict)
    dropped: int = 0

    @property
    def root(self) -> Span:
        """The span that everything began with, as far as is known."""
        return min(self.spans.values(), key=lambda span: (span.parent_id is not None, span.start))

    @property
    def start(self) -> int:
        """Nanoseconds since 1970."""
        return min(span.start for span in self.spans.values())

    @property
    def milliseconds(self) -> float:
        """From the first start to the last end."""
        return max(max(span.end for span in self.spans.values()) - self.start, 0) / 1e6

    @property
    def services(self) -> list[str]:
        """Who took part, in the order of their first span."""
        ordered = sorted(self.spans.values(), key=lambda span: span.start)
        return list(dict.fromkeys(span.service for span in ordered))

    @property
    def errors(self) -> int:
        """How many spans failed."""
        return sum(span.error for span in self.spans.values())

    @property
    def complete(self) -> bool:
        """Whether it has one beginning and every parent is there."""
        parents = [span.parent_id for span in self.spans.values()]
        known = all(parent in self.spans for parent in parents if parent is not None)
        return known and None in parents

    def settled(self, now: float) -> bool:
        """Whether nothing more is expected to arrive."""
        quiet = now - self.touched
        return quiet >= (_QUIET_SECONDS if self.complete else _PATIENCE_SECONDS)


class Store:
    """Keeps the last `traces` traces with at most `spans` spans each."""

    def __init__(
        self,
        traces: int = TRACES,
        spans: int = SPANS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = traces
        self._spans = spans
        self._clock = clock
        self._traces: dict[str, Trace] = {}

    def add(self, spans: Iterable[Span]) -> None:
        """Keep the spans; one that comes again takes its old place."""
        now = self._clock()
        for span in spans:
            trace = self._traces.get(span.trace_id)
            if trace is None:
                trace = self._traces[span.trace_id] = Trace(span.trace_id, now)
                if len(self._traces) > self._limit:
                    del self._traces[next(iter(self._traces))]
            trace.touched = now
            if len(trace.spans) < self._spans or span.span_id in trace.spans:
                trace.spans[span.span_id] = span
            else:
                trace.dropped += 1

    def get(self, trace_id: str) -> Trace | None:
        """Return one trace."""
        return self._traces.get(trace_id)

    def settled(self, trace: Trace) -> bool:
        """Whether nothing more of the trace is expected."""
        return trace.settled(self._clock())

    def __iter__(self) -> Iterator[Trace]:
        """Yield the traces, the one that came last first."""
        return reversed(self._traces.values())

    def __len__(self) -> int:
        return len(self._traces)
