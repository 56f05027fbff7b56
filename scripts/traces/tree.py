"""A trace as rows: each span below its parent, with its place on the time axis."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from scripts.traces.spans import Span


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree.

    `branches` draws the lines to its left: for each level, whether more siblings follow there.
    `offset` and `width` are parts of the whole trace, from 0 to 1.
    """

    span: Span
    branches: tuple[bool, ...]
    offset: float
    width: float

    @property
    def depth(self) -> int:
        """How many spans stand above it."""
        return len(self.branches)

    @property
    def lines(self) -> str:
        """The branches as text."""
        if not self.branches:
            return ""
        above = "".join("│ " if more else "  " for more in self.branches[1:-1])
        if self.depth == 1:
            return "├─" if self.branches[0] else "└─"
        first = "│ " if self.branches[0] else "  "
        return f"{first}{above}{'├─' if self.branches[-1] else '└─'}"


def rows(spans: Collection[Span]) -> list[Row]:
    """Return the tree in the order in which it is read.

    A span whose parent did not arrive stands at the top. Every span stands there once, also when
    parents form a circle.
    """
    if not spans:
        return []
    known = {span.span_id: span for span in spans}
    children: dict[str, list[Span]] = {}
    tops: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.span_id)):
        if span.parent_id is None or span.parent_id not in known:
            tops.append(span)
        else:
            children.setdefault(span.parent_id, []).append(span)
    begin = min(span.start for span in spans)
    whole = max(max(span.end for span in spans) - begin, 1)
    found: dict[str, Row] = {}
    while True:
        for top in tops:
            for span, branches in _below(top, children, found):
                found[span.span_id] = Row(
                    span,
                    branches,
                    (span.start - begin) / whole,
                    max(span.end - span.start, 0) / whole,
                )
        left = [span for span in spans if span.span_id not in found]
        if not left:
            return list(found.values())
        tops = [min(left, key=lambda span: span.start)]  # a circle: cut it where it begins


def _below(
    top: Span, children: dict[str, list[Span]], found: Collection[str]
) -> Iterator[tuple[Span, tuple[bool, ...]]]:
    """Yield `top` and all below it; `found` has those that were yielded before."""
    todo: list[tuple[Span, tuple[bool, ...]]] = [(top, ())]
    while todo:
        span, branches = todo.pop()
        if span.span_id in found:
            continue
        yield span, branches
        mine = children.get(span.span_id, [])
        todo += reversed([(child, (*branches, child is not mine[-1])) for child in mine])
