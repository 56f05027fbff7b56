"""A trace on the terminal: a line for each span, with a bar for its time."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.text import Text

from scripts.traces.spans import Span, counted
from scripts.traces.tree import Row, rows

_BAR = 30
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")


def show(console: Console, spans: Collection[Span]) -> None:
    """Print one trace."""
    tree = rows(spans)
    if not tree:
        return
    services = list(dict.fromkeys(row.span.service for row in tree))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(services)}
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    failed = sum(span.error for span in spans)
    head = f"\n{tree[0].span.trace_id}  {counted(spans)}, {(last - first) / 1e6:.1f} ms"
    console.print(Text(head + (f", {failed} failed" if failed else ""), "bold"), soft_wrap=True)
    names = max(len(row.lines) + len(_name(row.span)) for row in tree)
    for row in tree:
        console.print(_line(row, colours[row.span.service], names), soft_wrap=True)


def _line(row: Row, colour: str, names: int) -> Text:
    span = row.span
    name = _name(span)
    line = Text(f"{row.lines}", "dim")
    line.append(name, "red" if span.error else colour)
    line.append(" " * (names - len(row.lines) - len(name)) + f"  {span.milliseconds:9.1f} ms  ")
    begin = min(int(row.offset * _BAR), _BAR - 1)
    length = min(max(round(row.width * _BAR), 1), _BAR - begin)
    bar = " " * begin + "█" * length + " " * (_BAR - begin - length)
    line.append(bar, "red" if span.error else colour)
    if span.error:
        line.append(f"  ✗ {_clean(span.message or span.attributes.get('error.type', 'failed'))}")
    return line


def _name(span: Span) -> str:
    return _clean(f"{span.service}  {span.label}")


def _clean(text: str) -> str:
    """Take out what would move the cursor: names come from whoever sends spans."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
