"""The gateway: what clients see, which service fails behind it, and whom it turns away."""

from __future__ import annotations

from observability.dashboards.boards.queries import (
    NAMESPACES,
    OF_GATEWAY,
    OF_PUBLIC,
    gateway_duration,
    gateway_errors,
    quantile,
    rate,
)
from observability.dashboards.library import (
    BUDGET,
    BYTES,
    COUNT,
    ERRORS,
    MILLISECONDS,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SHARE,
    Board,
    Query,
    graph,
    number,
    service_page,
    traces,
)

SLOW = (250.0, 1000.0)
UPSTREAM = "envoy_cluster_upstream_rq"
CLUSTER = "envoy_cluster_name"
TO_SERVICE = (
    ("This service", service_page("${__field.labels.envoy_cluster_name}")),
    ("Its traces", traces("${__field.labels.envoy_cluster_name}")),
)
TRACES = (("Traces of this time", traces("gateway")),)


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-gateway",
        "Slipway / Gateway",
        "Envoy: answers to clients, the services behind it, refusals, and the proxy itself.",
        {"namespace": NAMESPACES},
    )
    board.row("Now", *_now())
    board.row("Answers to clients", *_clients())
    board.row("Services behind it", *_upstreams())
    board.row("Turned away", *_refusals())
    board.row("The proxy itself", *_proxy())
    return board


def _left(slo: str) -> Query:
    of = f'namespace=~"$namespace",service="gateway",slo="{slo}"'
    return Query(f"min(slipway:slo_budget_remaining:ratio30d{{{of}}})")


def _now() -> list[object]:
    return [
        number("Requests", "What clients ask. A sudden fall to nothing is an outage in front of "
               "the gateway.", REQUESTS_PER_SECOND,
               Query(rate("envoy_http_downstream_rq_xx", OF_PUBLIC, "")), links=TRACES),
        number("Errors", "Share of 5xx. Above 1 %: the row of services shows where they come "
               "from.", SHARE, Query(gateway_errors()), limits=ERRORS, links=TRACES),
        number("p99", "99 % of the answers take no longer; streams do not count.", MILLISECONDS,
               Query(gateway_duration(0.99)), limits=SLOW, links=TRACES),
        number("Availability left", "Of 30 days' budget: docs/runbooks/ErrorBudgetBurn.md.",
               SHARE, _left("availability"), limits=BUDGET),
        number("Latency left", "Of 30 days' budget: docs/runbooks/LatencyBudgetBurn.md.",
               SHARE, _left("latency"), limits=BUDGET),
        number("Open connections", "Of clients. Near limits.connections of the chart, new ones "
               "are refused.", COUNT,
               Query(f"sum(envoy_http_downstream_cx_active{{{OF_PUBLIC}}})"),
               limits=(7000, 9500)),
    ]  # fmt: skip


def _clients() -> list[object]:
    classes = rate("envoy_http_downstream_rq_xx", OF_PUBLIC, "envoy_response_code_class")
    return [
        graph("Answers by class", "4xx alone: a client, or a limit. 5xx: see the services.",
              REQUESTS_PER_SECOND, Query(classes, "{{envoy_response_code_class}}xx"),
              stacked=True, links=TRACES),
        graph("Duration", "Until the last byte of the answer; streams do not count. p50 tells of "
              "everybody, p99 of the unlucky.", MILLISECONDS,
              *(Query(gateway_duration(share), name)
                for share, name in ((0.99, "p99"), (0.95, "p95"), (0.5, "p50"))),
              limits=SLOW, links=TRACES),
        graph("Requests that clients gave up", "The client left before the answer. A rise "
              "together with duration: we are too slow for them.", PER_SECOND,
              Query(rate("envoy_http_downstream_rq_rx_reset", OF_PUBLIC, ""), "given up"),
              Query(rate("envoy_http_downstream_rq_timeout", OF_PUBLIC, ""), "too slow to send")),
    ]  # fmt: skip


def _upstreams() -> list[object]:
    every = rate(f"{UPSTREAM}_xx", OF_GATEWAY, CLUSTER)
    failed = rate(f"{UPSTREAM}_xx", f'{OF_GATEWAY},envoy_response_code_class="5"', CLUSTER)
    faults = {
        "envoy_cluster_upstream_cx_connect_fail": "no connection",
        "envoy_cluster_upstream_cx_none_healthy": "no replica left",
        "envoy_cluster_upstream_rq_timeout": "timeout",
        "envoy_cluster_upstream_rq_rx_reset": "reset",
        "envoy_cluster_upstream_rq_pending_overflow": "too many wait",
    }
    return [
        graph("Requests by service", "What the gateway sends on.", REQUESTS_PER_SECOND,
              Query(rate(f"{UPSTREAM}_total", OF_GATEWAY, CLUSTER), "{{envoy_cluster_name}}"),
              links=TO_SERVICE),
        graph("Errors by service", "Share of 5xx that a service answers. Go to its dashboard.",
              SHARE, Query(f"({failed} or 0 * {every}) / ({every} > 0)", "{{envoy_cluster_name}}"),
              limits=ERRORS, links=TO_SERVICE),
        graph("p99 by service", "How long a service takes, without the client's network. Close to "
              "the client's p99: the service is slow. Far below: the network is.", MILLISECONDS,
              Query(quantile(0.99, f"{UPSTREAM}_time", OF_GATEWAY, CLUSTER),
                    "{{envoy_cluster_name}}"), limits=SLOW, links=TO_SERVICE),
        graph("Not reached", "Faults between gateway and service, by kind: "
              "docs/runbooks/GatewayUpstreamFailures.md.", PER_SECOND,
              *(Query(rate(metric, OF_GATEWAY, CLUSTER), f"{{{{envoy_cluster_name}}}} {kind}")
                for metric, kind in faults.items()),
              limits=(0.01, 1), wide=12, links=TO_SERVICE),
        graph("Replicas in use", "Addresses that the gateway sends to. 0: nobody serves.", COUNT,
              Query(f"min by ({CLUSTER}) (envoy_cluster_membership_healthy{{{OF_GATEWAY}}})",
                    "{{envoy_cluster_name}}"), limits=(1, 0), wide=6, links=TO_SERVICE),
        graph("Replicas left out", "Taken out for failing, for some seconds each time. One that "
              "comes back again and again is ill: look at its log.", COUNT,
              Query(f"max by ({CLUSTER}) "
                    f"(envoy_cluster_outlier_detection_ejections_active{{{OF_GATEWAY}}})",
                    "{{envoy_cluster_name}}"), limits=(1, 2), wide=6, links=TO_SERVICE),
        graph("Retries", "Second attempts. Success hides a fault from the client; look for it "
              "while nobody suffers.", PER_SECOND,
              Query(rate(f"{UPSTREAM}_retry", OF_GATEWAY, CLUSTER), "{{envoy_cluster_name}}"),
              Query(rate(f"{UPSTREAM}_retry_overflow", OF_GATEWAY, CLUSTER),
                    "{{envoy_cluster_name}} refused by the budget"), links=TO_SERVICE),
        graph("Requests in flight", "By service. Near upstream.maxRequests of the chart, more are "
              "refused with 503.", COUNT,
              Query(f"sum by ({CLUSTER}) ({UPSTREAM}_active{{{OF_GATEWAY}}})",
                    "{{envoy_cluster_name}}"), limits=(700, 1000), links=TO_SERVICE),
        graph("Connections to services", "Open ones. New ones for each request mean that "
              "keep-alive does not work.", COUNT,
              Query(f"sum by ({CLUSTER}) (envoy_cluster_upstream_cx_active{{{OF_GATEWAY}}})",
                    "{{envoy_cluster_name}}"), links=TO_SERVICE),
    ]  # fmt: skip


def _refusals() -> list[object]:
    prefix = "envoy_local_http_ratelimit_prefix"
    limited = rate("envoy_http_local_rate_limit_rate_limited", OF_GATEWAY, prefix)
    asked = rate("envoy_http_local_rate_limit_enabled", OF_GATEWAY, prefix)
    return [
        graph("429 by limit", "Requests refused by a rate limit. `clients` is the general one: "
              "docs/runbooks/RateLimitStorm.md.", REQUESTS_PER_SECOND,
              Query(limited, f"{{{{{prefix}}}}}"), limits=(1, 5)),
        graph("Share of 429", "Of the requests that a limit looks at. Many at one limit and few "
              "elsewhere: the limit is too low, or one client is in a loop.", SHARE,
              Query(f"{limited} / ({asked} > 0)", f"{{{{{prefix}}}}}"), limits=(0.05, 0.2)),
        graph("Tokens", "Refused tokens rise when a client's clock or our keys are wrong: "
              "docs/runbooks/auth.md.", REQUESTS_PER_SECOND,
              Query(rate("envoy_http_jwt_authn_denied", OF_PUBLIC, ""), "refused"),
              Query(rate("envoy_http_jwt_authn_allowed", OF_PUBLIC, ""), "let in")),
        graph("API keys", "Exchanged at auth. `error`: auth does not answer, and keys are of no "
              "use meanwhile.", REQUESTS_PER_SECOND,
              *(Query(rate(f"envoy_http_ext_authz_{what}", OF_PUBLIC, ""), what)
                for what in ("ok", "denied", "error"))),
        graph("Keys fetched from auth", "Failures leave the old keys in use; for long, new tokens "
              "are refused.", PER_SECOND,
              Query(rate("envoy_http_jwt_authn_jwks_fetch_success", OF_PUBLIC, ""), "fetched"),
              Query(rate("envoy_http_jwt_authn_jwks_fetch_failed", OF_PUBLIC, ""), "failed")),
    ]  # fmt: skip


def _proxy() -> list[object]:
    return [
        graph("Memory", "Of each replica. Compare with resources.limits of the chart.", BYTES,
              Query(f"max by (instance) (envoy_server_memory_physical_size{{{OF_GATEWAY}}})",
                    "{{instance}}")),
        graph("Time since the start", "A line that falls to 0 was a restart.", "s",
              Query(f"min by (instance) (envoy_server_uptime{{{OF_GATEWAY}}})", "{{instance}}")),
        graph("Connections refused", "By a limit on all connections. Not 0: clients cannot "
              "connect.", PER_SECOND,
              Query(rate("envoy_listener_downstream_cx_overflow", OF_GATEWAY, "instance"),
                    "{{instance}}"), limits=(0.01, 1)),
    ]  # fmt: skip
