"""The pages: a list of the last traces, and one trace as a tree. Everything shown is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from scripts.traces.spans import counted
from scripts.traces.store import Store, Trace
from scripts.traces.tree import Row, rows

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1c2330; background: #fbfbfc }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e6e8ec;
  vertical-align: top }
th { color: #69707d; font-weight: 500 } .number { text-align: right; white-space: nowrap }
.bar { width: 40% } .bar div { position: relative; height: 1.1rem }
.bar i { position: absolute; top: .2rem; bottom: .2rem; min-width: 2px; background: #5b8def }
.error { color: #b3261e } .error .bar i { background: #d9534f }
.lines { font-family: monospace; white-space: pre; color: #b4bac4 } b { font-weight: 600 }
details { display: inline-block } summary { cursor: pointer; list-style: none }
dl { margin: .2rem 0; font-size: 12px } dt { float: left; color: #69707d; margin-right: .5rem }
dd { margin: 0; overflow-wrap: anywhere } .quiet { color: #69707d }
"""


def listing(store: Store) -> str:
    """Return the page of all traces, the last one first; it renews itself."""
    lines = [
        "<tr{}><td>{}</td><td><a href='/trace/{}'>{}</a></td><td>{}</td>"
        "<td class=number>{}</td><td class=number>{:.1f} ms</td><td>{}</td></tr>".format(
            " class=error" if trace.errors else "",
            _clock(trace.start),
            escape(trace.id),
            escape(title(trace)),
            escape(", ".join(trace.services)),
            len(trace.spans),
            trace.milliseconds,
            f"{trace.errors} failed" if trace.errors else "",
        )
        for trace in store
    ]
    body = (
        "<table><tr><th>began (UTC)</th><th>request</th><th>services</th>"
        "<th class=number>spans</th><th class=number>took</th><th></th></tr>"
        f"{''.join(lines)}</table>"
        if lines
        else "<p>No trace yet. Place an order: <code>make demo</code></p>"
    )
    return _page("Last traces", body, refresh=True)


def one(trace: Trace) -> str:
    """Return the page of one trace."""
    lines = "".join(_line(row) for row in rows(list(trace.spans.values())))
    dropped = f"<p>{trace.dropped} more spans were not kept.</p>" if trace.dropped else ""
    return _page(
        title(trace),
        f"<p class=quiet><a href='/'>all traces</a> &middot; {escape(trace.id)} &middot; "
        f"{_clock(trace.start)} UTC &middot; {counted(trace.spans)} &middot; "
        f"{trace.milliseconds:.1f} ms</p>"
        "<table><tr><th>span</th><th class=number>took</th><th class=bar>time</th></tr>"
        f"{lines}</table>{dropped}",
    )


def title(trace: Trace) -> str:
    """Return what a trace is about: its first span, by its route where it passed the gateway."""
    root = trace.root
    below = [span for span in trace.spans.values() if span.parent_id == root.span_id]
    routed = [span.name for span in below if "http.route" in span.attributes]
    return routed[0] if routed else root.label


def _line(row: Row) -> str:
    span = row.span
    known = {"name": span.name, **span.attributes}
    if span.message:
        known["status"] = span.message
    for trace_id, span_id in span.links:
        known[f"link to {span_id}"] = f"trace {trace_id}"
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in known.items())
    return (
        f"<tr{' class=error' if span.error else ''}><td><span class=lines>{row.lines}</span>"
        f"<details><summary><b>{escape(span.service)}</b> {escape(span.label)} "
        f"<span class=quiet>{escape(span.kind)}</span>{' failed' if span.error else ''}</summary>"
        f"<dl>{facts}</dl></details></td>"
        f"<td class=number>{span.milliseconds:.1f} ms</td>"
        f"<td class=bar><div><i style='left:{row.offset:.2%};width:{row.width:.2%}'></i></div></td>"
        "</tr>"
    )


def _clock(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds / 1e9, UTC):%H:%M:%S.%f}"[:-3]


def _page(heading: str, body: str, *, refresh: bool = False) -> str:
    again = "<meta http-equiv=refresh content=3>" if refresh else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{again}"
        f"<title>{escape(heading)} - traces</title><style>{_STYLE}</style>"
        f"<h1>{escape(heading)}</h1>{body}</html>"
    )
