"""One service, any of them: what it is asked, what it answers, what holds it up."""

from __future__ import annotations

from observability.dashboards.boards.queries import (
    NAMESPACES,
    OF_SERVICE,
    SERVICES,
    breakers,
    errors,
    highest,
    quantile,
    rate,
)
from observability.dashboards.library import (
    BUDGET,
    BYTES,
    CORES,
    COUNT,
    ERRORS,
    LATENCY,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Board,
    Column,
    Query,
    graph,
    note,
    number,
    table,
    traces,
)

LOGS = """\
| | on a laptop | in a cluster |
|---|---|---|
| its log | `make logs SERVICE=$service PRETTY=1` \
| `kubectl logs -n $namespace -l app.kubernetes.io/name=$service -f` |
| its state | `curl -s http://<address>/readyz` (`make status` shows the address) \
| `kubectl get pods -n $namespace -l app.kubernetes.io/name=$service` |
| its runbook | `docs/runbooks/$service.md` | the same |
"""

TRACES = (("Traces of this time", traces("${service}")),)
HTTP = "http_request_duration_seconds"
CALLS = "http_client_request_duration_seconds"


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-service",
        "Slipway / Service",
        "One service: requests by route, peers, database, events, and the process itself.",
        {"namespace": NAMESPACES, "service": SERVICES},
        chosen=("service",),
        service="$service",
    )
    board.row("Now", *_now())
    board.row("Requests", *_requests())
    board.row("Peers", *_peers())
    board.row("Database and events", *_stored())
    board.row("Process", *_process())
    board.row("Logs", note("Where to look next", LOGS))
    return board


def _left(slo: str) -> str:
    of = f'namespace=~"$namespace",service=~"$service",slo="{slo}"'
    return f"min(slipway:slo_budget_remaining:ratio30d{{{of}}})"


def _now() -> list[object]:
    return [
        number("Replicas", "Processes that answer Prometheus. Fewer than you expect: "
               "docs/runbooks/TargetDown.md.",
               COUNT, Query(f"count(build_info{{{OF_SERVICE}}})")),
        number("Requests", "Answers a second, probes not counted.", REQUESTS_PER_SECOND,
               Query(rate("http_requests_total", OF_SERVICE, "")), links=TRACES),
        number("Errors", "Share of 5xx. Which route and which status stands below.", SHARE,
               Query(f"max({errors(OF_SERVICE)})"), limits=ERRORS, links=TRACES),
        number("p99", "99 % of the answers take no longer.", SECONDS,
               Query(quantile(0.99, HTTP, OF_SERVICE, "")), limits=LATENCY, links=TRACES),
        number("Availability left", "Of 30 days' budget of failures. Below 0 the promise is "
               "broken: docs/runbooks/ErrorBudgetBurn.md.",
               SHARE, Query(_left("availability")), limits=BUDGET),
        number("Latency left", "Of 30 days' budget of slow answers: "
               "docs/runbooks/LatencyBudgetBurn.md.",
               SHARE, Query(_left("latency")), limits=BUDGET),
    ]  # fmt: skip


def _requests() -> list[object]:
    return [
        graph("Requests by route", "Which route is asked. `_unmatched` are paths that do not "
              "exist: a client with a wrong address, or somebody who tries doors.",
              REQUESTS_PER_SECOND,
              Query(rate("http_requests_total", OF_SERVICE, "method, route"),
                    "{{method}} {{route}}"), links=TRACES),
        graph("Answers by status", "5xx are ours: look at peers and database below. 4xx are the "
              "client's, but a sudden rise after a rollout is ours as well.",
              REQUESTS_PER_SECOND,
              Query(rate("http_requests_total", OF_SERVICE, "status"), "{{status}}"),
              stacked=True, links=TRACES),
        graph("Duration", "The points of light are requests: click one for its trace. If p50 rises "
              "too, everything is slow; if only p99 does, one route or one peer is.",
              SECONDS,
              Query(quantile(0.99, HTTP, OF_SERVICE, ""), "p99", exemplars=True),
              Query(quantile(0.95, HTTP, OF_SERVICE, ""), "p95"),
              Query(quantile(0.5, HTTP, OF_SERVICE, ""), "p50"),
              limits=LATENCY, links=TRACES),
        graph("p99 by route", "The slow route. Open a point's trace and see which span is long.",
              SECONDS,
              Query(quantile(0.99, HTTP, OF_SERVICE, "method, route"), "{{method}} {{route}}",
                    exemplars=True),
              limits=LATENCY, wide=12, links=TRACES),
        graph("Errors by route", "Share of 5xx of each route. One route: its own code or its "
              "peer. All routes: database, or the process.", SHARE,
              Query(errors(OF_SERVICE, "route"), "{{route}}"), limits=ERRORS, wide=12,
              links=TRACES),
    ]  # fmt: skip


def _peers() -> list[object]:
    retries = rate("http_client_retries_total", OF_SERVICE, "peer")
    calls = rate("http_client_requests_total", OF_SERVICE, "peer")
    return [
        graph("Calls by outcome", "Attempts to call peers. `open` was refused by the breaker, "
              "`connect`, `timeout` and `reset` are the network or a dead peer.",
              REQUESTS_PER_SECOND,
              Query(rate("http_client_requests_total", OF_SERVICE, "peer, status"),
                    "{{peer}} {{status}}"), links=TRACES),
        graph("Duration of calls, p99", "The slow peer. Go to its own dashboard.", SECONDS,
              Query(quantile(0.99, CALLS, OF_SERVICE, "peer"), "{{peer}}"), limits=LATENCY,
              links=TRACES),
        graph("Retries", "Attempts after the first. Some are normal while a peer rolls out; many "
              "for long are load that a weak peer does not need.", PER_SECOND,
              Query(f"{retries} or 0 * {calls}", "{{peer}}")),
        graph("Circuit breakers", "0 closed, 1 tries again, 2 refuses calls: "
              "docs/runbooks/BreakerOpen.md.", COUNT,
              Query(breakers(OF_SERVICE), "{{peer}}"), limits=(1, 2)),
    ]  # fmt: skip


def _stored() -> list[object]:
    return [
        graph("Database connections", "`used` level at the pool's size means that requests wait "
              "for one.", COUNT,
              Query(f"sum by (state) (db_pool_connections{{{OF_SERVICE}}})", "{{state}}"),
              stacked=True),
        graph("Wait for a connection", "How long a session waits. Above 0.1 s: "
              "docs/runbooks/DatabasePoolExhausted.md.",
              SECONDS, Query(quantile(0.99, "db_pool_wait_seconds", OF_SERVICE, ""), "p99"),
              Query(quantile(0.5, "db_pool_wait_seconds", OF_SERVICE, ""), "p50"),
              limits=(0.1, 1)),
        graph("Events that wait", "The outbox. A hill after a restart of the subscriber is normal; "
              "a ramp is not: docs/runbooks/OutboxStuck.md.", COUNT,
              Query(highest("outbox_pending", OF_SERVICE, ""), "pending"),
              Query(highest("outbox_dead_letters", OF_SERVICE, ""), "dead letters"),
              limits=(100, 1000)),
        graph("Age of the oldest event", "How late the latest news is. Above 300 s it pages.",
              SECONDS, Query(highest("outbox_oldest_age_seconds", OF_SERVICE, ""), "oldest"),
              limits=(60, 300)),
        graph("Deliveries by outcome", "`retry` while a subscriber is away; `dead` are for you: "
              "docs/runbooks/DeadLetters.md.", PER_SECOND,
              Query(rate("outbox_deliveries_total", OF_SERVICE, "type, outcome"),
                    "{{type}} {{outcome}}")),
        graph("Read model behind", "Age of the oldest event that queries do not show yet. Above "
              "60 s: docs/runbooks/ProjectionBehind.md.", SECONDS,
              Query(highest("projection_lag_seconds", OF_SERVICE, ""), "oldest event"),
              limits=(10, 60)),
        graph("Restarts of background loops", "Not 0: a loop fails, see its log: "
              "docs/runbooks/WorkerRestarting.md.", COUNT,
              Query(f"sum by (worker) (increase(background_worker_restarts_total{{{OF_SERVICE}}}"
                    "[$__rate_interval]))", "{{worker}}"), limits=(1, 5)),
    ]  # fmt: skip


def _process() -> list[object]:
    return [
        graph("Event loop lag, p99", "By replica. Above 0.25 s: docs/runbooks/EventLoopLagHigh.md.",
              SECONDS, Query(quantile(0.99, "event_loop_lag_seconds", OF_SERVICE, "instance"),
                             "{{instance}}"), limits=(0.05, 0.25)),
        graph("Requests in flight", "By replica. One that stands out is stuck or gets more than "
              "its share.", COUNT,
              Query(f"sum by (instance) (http_requests_in_flight{{{OF_SERVICE}}})",
                    "{{instance}}")),
        graph("CPU", "By replica. At 1 core a process of Python is full: it needs more replicas, "
              "not more CPU.", CORES,
              Query(rate("process_cpu_seconds_total", OF_SERVICE, "instance"), "{{instance}}"),
              limits=(0.7, 1)),
        graph("Memory", "By replica. Compare with the limit in service.yaml; a line that only "
              "rises is a leak.", BYTES,
              Query(highest("process_resident_memory_bytes", OF_SERVICE, "instance"),
                    "{{instance}}")),
        graph("Garbage collection of old objects", "Collections a second of the oldest "
              "generation; each stops the process.", PER_SECOND,
              Query(rate("python_gc_collections_total", f'{OF_SERVICE},generation="2"',
                         "instance"), "{{instance}}")),
        graph("Open files", "Sockets and files. A ramp is a leak of connections.", COUNT,
              Query(highest("process_open_fds", OF_SERVICE, "instance"), "{{instance}}")),
        table("What runs", "Two versions at once: a rollout is under way, or stuck "
              "(docs/runbooks/RolloutStuck.md).",
              [("version", "Version"), ("revision", "Revision"), ("python", "Python")],
              [Column("Replicas", COUNT,
                      f"count by (version, revision, python) (build_info{{{OF_SERVICE}}})")],
              high=5),
    ]  # fmt: skip
