"""`python -m scripts.traces`: show the traces of the local platform as they come, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
from rich.console import Console

from scripts.local.home import Home, read_json
from scripts.local.lock import held
from scripts.traces.spans import Span
from scripts.traces.terminal import show

_POLL_SECONDS = 1.0
_NOT_RUNNING = 3


def find(home: Home) -> str | None:
    """Return where the view of the running platform listens, or None."""
    status = read_json(home.status)
    if not held(home) or not isinstance(status, dict):
        return None
    found = [each for each in status["processes"] if each["name"] == "traces"]
    return f"http://127.0.0.1:{found[0]['port']}" if found else None


def settled(client: httpx2.Client, url: str, shown: set[str]) -> Iterator[list[Span]]:
    """Yield the traces that are whole and not `shown` yet, the oldest first; they are then."""
    summaries: list[dict[str, Any]] = client.get(f"{url}/api/traces").json()
    shown &= {each["id"] for each in summaries}  # forgotten there: forgotten here
    for summary in reversed(summaries):
        if summary["settled"] and summary["id"] not in shown:
            shown.add(summary["id"])
            answer = client.get(f"{url}/api/traces/{summary['id']}")
            if answer.status_code == 200:  # noqa: PLR2004
                yield [_span(each) for each in answer.json()["spans"]]


def _span(values: dict[str, Any]) -> Span:
    links = tuple((trace_id, span_id) for trace_id, span_id in values.pop("links"))
    return Span(**values, links=links)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Exit code 3 when there is nothing to show it from."""
    parser = argparse.ArgumentParser(prog="python -m scripts.traces", description=__doc__)
    parser.add_argument("--once", action="store_true", help="show what is there, and end")
    args = parser.parse_args(arguments)
    url = find(Home.from_environment())
    if url is None:
        print(
            "slipway: no traces are collected; start the platform with `make up TRACES=1`",
            file=sys.stderr,
        )
        return _NOT_RUNNING
    console = Console()
    console.print(f"Traces as they come, some seconds late; as pages: {url}", highlight=False)
    shown: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt), httpx2.Client(trust_env=False) as client:
        while True:
            try:
                for spans in settled(client, url, shown):
                    show(console, spans)
            except httpx2.TransportError:
                print("slipway: the platform has stopped", file=sys.stderr)
                return _NOT_RUNNING
            if args.once:
                break
            time.sleep(_POLL_SECONDS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
