"""Everything at a glance: is it well, and if not, which service?"""

from __future__ import annotations

from observability.dashboards.boards.queries import (
    NAMESPACES,
    OF,
    OF_PUBLIC,
    breakers,
    budget,
    burning,
    errors,
    gateway_duration,
    gateway_errors,
    highest,
    quantile,
    rate,
)
from observability.dashboards.library import (
    BUDGET,
    BY_SERVICE,
    BYTES,
    CORES,
    COUNT,
    ERRORS,
    LATENCY,
    MILLISECONDS,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Board,
    Column,
    Query,
    graph,
    note,
    number,
    service_page,
    table,
)

LOGS = """\
A point of light on a latency graph is one request: click it to open its trace in Jaeger. The \
same trace id stands in the log lines of the gateway and of every service that the request \
crossed, and in each problem that a client got.

| | on a laptop | in a cluster |
|---|---|---|
| the log of a service | `make logs SERVICE=orders PRETTY=1` \
| `kubectl logs -l app.kubernetes.io/name=orders -f` |
| all lines of a trace | `make logs FOLLOW=0 \\| grep <trace id>` \
| `kubectl logs -l app.kubernetes.io/part-of=slipway --tail=-1 \\| grep <trace id>` |

Each alert has a page in `docs/runbooks`.
"""


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-overview",
        "Slipway / Overview",
        "All services: traffic, errors, duration, saturation and what is left of the budgets.",
        {"namespace": NAMESPACES},
    )
    board.row("Now", *_now())
    board.row("Services", _services(), *_red())
    board.row("Saturation: before latency shows it", *_saturation())
    board.row("Traces and logs", note("From here to a trace and its logs", LOGS, high=8))
    return board


def _now() -> list[object]:
    return [
        number("Pages", "Alerts that need somebody now. Not 0: open the alert's page in "
               "docs/runbooks; the table below shows which service.",
               COUNT, Query(burning("page")), limits=(1, 1)),
        number("Tickets", "Alerts that wait for working hours. Not 0: see that each has an owner "
               "who knows.", COUNT, Query(burning("ticket")), limits=(1, 10)),
        number("Services down", "Services of which no replica answers Prometheus. Not 0: "
               "docs/runbooks/ServiceDown.md.",
               COUNT, Query(f"count(max by (job) (up{{{OF}}}) == 0) or vector(0)"),
               limits=(1, 1)),
        number("Requests", "What clients ask of the gateway. A sudden fall to nothing is an outage "
               "in front of the gateway.", REQUESTS_PER_SECOND,
               Query(rate("envoy_http_downstream_rq_xx", OF_PUBLIC, ""))),
        number("Failing requests", "Share of the gateway's answers that are 5xx. Above 1 %: find "
               "the service below.", SHARE, Query(gateway_errors()), limits=ERRORS),
        number("Slowest 1 %", "99 % of the requests are answered by the gateway within this "
               "time.", MILLISECONDS,
               Query(gateway_duration(0.99)),
               limits=(250, 1000)),
    ]  # fmt: skip


def _services() -> object:
    return table(
        "Services",
        "One line a service. Begin with the reddest; a click on its name leads to its own "
        "dashboard or to its traces.",
        [("job", "Service")],
        [
            Column("Replicas", COUNT, f"count by (job) (build_info{{{OF}}})"),
            Column("Requests", REQUESTS_PER_SECOND, rate("http_requests_total", OF)),
            Column("Errors", SHARE, errors(OF), ERRORS),
            Column("p99", SECONDS, quantile(0.99, "http_request_duration_seconds", OF), LATENCY),
            Column("Lag p99", SECONDS, quantile(0.99, "event_loop_lag_seconds", OF), (0.05, 0.25)),
            Column("Availability left", SHARE, budget("availability"), BUDGET),
            Column("Latency left", SHARE, budget("latency"), BUDGET),
        ],
        links=(
            ("This service", service_page("${__data.fields.Service}")),
        ),
    )  # fmt: skip


def _red() -> list[object]:
    return [
        graph("Requests by service", "A service that gets less than usual may be cut off; one that "
              "gets far more may be retried by its callers.",
              REQUESTS_PER_SECOND, Query(rate("http_requests_total", OF), "{{job}}"),
              links=BY_SERVICE),
        graph("Errors by service", "Share of 5xx. When several rise together, begin with the one "
              "that the others call: auth, items, inventory.",
              SHARE, Query(errors(OF), "{{job}}"), limits=ERRORS, links=BY_SERVICE),
        graph("p99 by service", "99 % of the answers take no longer. The points of light are "
              "requests: click one for its trace.",
              SECONDS,
              Query(quantile(0.99, "http_request_duration_seconds", OF), "{{job}}",
                    exemplars=True),
              limits=LATENCY, links=BY_SERVICE),
        graph("Error budget left: availability", "What is left of the 30 days' budget of failures. "
              "Below 0 the promise is broken: stop risky releases, see docs/alerts.md.",
              SHARE, Query(budget("availability"), "{{job}}"), limits=BUDGET, wide=12, most=1,
              links=BY_SERVICE),
        graph("Error budget left: latency", "What is left of the 30 days' budget of slow answers. "
              "A steady fall is a regression: compare with the rollouts marked in blue.",
              SHARE, Query(budget("latency"), "{{job}}"), limits=BUDGET, wide=12, most=1,
              links=BY_SERVICE),
    ]  # fmt: skip


def _saturation() -> list[object]:
    used = f'sum by (job) (db_pool_connections{{{OF},state="used"}})'
    return [
        graph("Event loop lag, p99", "How late timers run. Above 0.25 s a replica blocks or has no "
              "CPU: docs/runbooks/EventLoopLagHigh.md.", SECONDS,
              Query(quantile(0.99, "event_loop_lag_seconds", OF), "{{job}}"),
              limits=(0.05, 0.25), links=BY_SERVICE),
        graph("Requests in flight", "Being served now. It grows when answers slow down: look at "
              "the peers and the database of the service that grows first.", COUNT,
              Query(f"sum by (job) (http_requests_in_flight{{{OF}}})", "{{job}}"),
              links=BY_SERVICE),
        graph("Wait for a database connection, p99", "The pool is exhausted when this passes 0.1 "
              "s: docs/runbooks/DatabasePoolExhausted.md.", SECONDS,
              Query(quantile(0.99, "db_pool_wait_seconds", OF), "{{job}}"), limits=(0.1, 1),
              links=BY_SERVICE),
        graph("Database connections in use", "Of all replicas. Near pool size times replicas, "
              "requests begin to wait.", COUNT, Query(used, "{{job}}"), links=BY_SERVICE),
        graph("CPU", "Cores used by each service. Level at the top while requests grow: the "
              "autoscaler is at its end, see Kubernetes.", CORES,
              Query(rate("process_cpu_seconds_total", OF), "{{job}}"), links=BY_SERVICE),
        graph("Memory of the largest replica", "A line that only rises is a leak: it ends in a "
              "restart for lack of memory.", BYTES,
              Query(highest("process_resident_memory_bytes", OF), "{{job}}"), links=BY_SERVICE),
        graph("Circuit breakers that are not closed", "1 tries again, 2 refuses calls. The peer is "
              "the incident, not the caller: docs/runbooks/BreakerOpen.md.", COUNT,
              Query(breakers(OF), "{{job}} to {{peer}}"), limits=(1, 2), wide=12,
              links=BY_SERVICE),
        graph("Oldest event in an outbox", "Events that are not delivered. Above 300 s somebody "
              "pages: docs/runbooks/OutboxStuck.md.", SECONDS,
              Query(highest("outbox_oldest_age_seconds", OF), "{{job}}"), limits=(60, 300),
              wide=12, links=BY_SERVICE),
    ]  # fmt: skip
