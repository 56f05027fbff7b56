"""The promises: what is left, how fast it goes, and what the alerts see."""

from __future__ import annotations

from observability.dashboards.boards.queries import NAMESPACES
from observability.dashboards.library import (
    BUDGET,
    REQUESTS_PER_SECOND,
    SHARE,
    TIMES,
    Board,
    Column,
    Query,
    graph,
    note,
    service_page,
    table,
    traces,
)

OF_NAMESPACE = 'namespace=~"$namespace"'
OF = 'namespace=~"$namespace",service=~"$service"'
LINKS = (
    ("This service", service_page("${__field.labels.service}")),
    ("Its traces", traces("${__field.labels.service}")),
)
READ = """\
Each service promises a share of requests without a 5xx and a share within a time (`slo` in its \
`service.yaml`; the gateway's in `observability/gateway.yaml`). What may be broken in 30 days is \
its **budget**. A **burn** of 1 spends exactly the budget; 14.4 spends it in two days. An alert \
needs the burn in a long and in a short window, and more than a handful of failures:

| burn | windows | who | budget gone in |
|---|---|---|---|
| 14.4 | 1 h and 5 min | page | 2 days |
| 6 | 6 h and 30 min | page | 5 days |
| 3 | 1 d and 2 h | ticket | 10 days |
| 1 | 3 d and 6 h | ticket | 30 days |

More: `docs/alerts.md`.
"""


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-slo",
        "Slipway / SLOs",
        "Objectives of the services and of the gateway, their budgets and the speed of the burn.",
        {
            "namespace": NAMESPACES,
            "service": f"label_values(slipway:slo_objective:ratio{{{OF_NAMESPACE}}}, service)",
        },
        service="$service",
    )
    board.row("Promises", _promises(), note("How to read this", READ, high=9))
    board.row("Budget", *(_left(slo) for slo in ("availability", "latency")))
    board.row("Burn", *(_burn(window, limit) for window, limit in WINDOWS.items()))
    board.row("What is counted", *_counted())
    return board


WINDOWS = {"5m": 14.4, "1h": 14.4, "30m": 6.0, "6h": 6.0, "2h": 3.0, "1d": 3.0, "3d": 1.0}


def _each(metric: str, slo: str = "") -> str:
    more = f',slo="{slo}"' if slo else ""
    return f"{metric}{{{OF}{more}}}"


def _promises() -> object:
    by = "sum by (service, slo)"
    return table(
        "Promises",
        "Each promise, and what became of it. Red: the promise of 30 days is broken; agree with "
        "the owner what waits until it is kept again.",
        [("service", "Service"), ("slo", "Promise")],
        [
            Column("Promised", SHARE, f"{by} ({_each('slipway:slo_objective:ratio')})"),
            Column("Kept for 1 d", SHARE, f"1 - {by} ({_each('slipway:slo_bad:ratio_rate1d')})"),
            Column("Kept for 3 d", SHARE, f"1 - {by} ({_each('slipway:slo_bad:ratio_rate3d')})"),
            Column(
                "Budget left",
                SHARE,
                f"min by (service, slo) ({_each('slipway:slo_budget_remaining:ratio30d')})",
                BUDGET,
            ),
        ],
        high=12,
    )


def _left(slo: str) -> object:
    return graph(
        f"Budget left: {slo}",
        "1 is the whole budget of 30 days, 0 is none. A cliff is an incident, a slope a "
        "regression: compare with the rollouts marked in blue.",
        SHARE,
        Query(_each("slipway:slo_budget_remaining:ratio30d", slo), "{{service}}"),
        limits=BUDGET,
        most=1,
        wide=12,
        links=LINKS,
    )


def _burn(window: str, limit: float) -> object:
    burn = (
        f"{_each(f'slipway:slo_bad:ratio_rate{window}')} "
        f"/ (1 - {_each('slipway:slo_objective:ratio')})"
    )
    return graph(
        f"Burn over {window}",
        f"How many times too fast the budget goes. Above {limit:g} in this window and in its "
        "partner, it alerts: docs/runbooks/ErrorBudgetBurn.md, LatencyBudgetBurn.md.",
        TIMES,
        Query(burn, "{{service}} {{slo}}"),
        limits=(1, limit) if limit > 1 else (0.8, 1),
        wide=6,
        links=LINKS,
    )


def _counted() -> list[object]:
    return [
        graph(
            f"Counted for {slo}",
            "The requests that the promise is about, and those that broke it. No line: nothing was "
            "asked, so nothing is promised.",
            REQUESTS_PER_SECOND,
            Query(_each("slipway:slo_requests:rate5m", slo), "{{service}}"),
            Query(_each("slipway:slo_bad:rate5m", slo), "{{service}} broken"),
            wide=12,
            links=LINKS,
        )
        for slo in ("availability", "latency")
    ]
