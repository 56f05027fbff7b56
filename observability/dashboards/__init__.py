"""The dashboards, built by `grafana-foundation-sdk` and committed as the JSON that Grafana loads.

python -m observability.dashboards --write
python -m observability.dashboards --check
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
PATTERN = "*.json"

# What stands for Grafana's variables where there is no Grafana.
VARIABLES = {
    "namespace": ".*",
    "service": ".*",
    "__rate_interval": "5m",
    "__range": "1h",
    "__interval": "1m",
}


class PanelQuery(NamedTuple):
    """A query of a panel, as it is written: its variables (`$service`) are not replaced."""

    dashboard: str
    panel: str
    expr: str


def files() -> dict[str, str]:
    """Return the text of each dashboard, by name."""
    return {
        f"{board['uid']}.json": json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        for board in documents()
    }


def documents() -> list[dict[str, Any]]:
    """Return each dashboard as Grafana loads it."""
    # Here, so that whoever only reads the committed files needs no SDK.
    from observability.dashboards import boards  # noqa: PLC0415

    return [make().document() for make in boards.ALL]


def committed() -> list[dict[str, Any]]:
    """Return each dashboard from its committed file."""
    return [json.loads(file.read_text()) for file in sorted(FOLDER.glob(PATTERN))]


def queries() -> list[PanelQuery]:
    """Return every query of every panel of the committed dashboards."""
    return [
        PanelQuery(board["uid"], panel["title"], target["expr"])
        for board in committed()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def substitute(expr: str, **values: str) -> str:
    """Return a query with its variables replaced: by `values`, else by `VARIABLES`.

    Raises:
        KeyError: a variable is unknown.
    """
    known = {**VARIABLES, **values}
    return re.sub(r"\$\{?([a-zA-Z_]\w*)\}?", lambda found: known[found[1]], expr)
