"""Queries that several dashboards show, so that the same name is the same number everywhere."""

from __future__ import annotations

from observability.rules.slo import timed_clusters
from scripts import topology

NAMESPACES = "label_values(build_info, namespace)"
SERVICES = 'label_values(build_info{namespace=~"$namespace"}, job)'

OF = 'namespace=~"$namespace"'
OF_SERVICE = 'namespace=~"$namespace",job=~"$service"'
OF_GATEWAY = 'namespace=~"$namespace",job="gateway"'
OF_PUBLIC = f'{OF_GATEWAY},envoy_http_conn_manager_prefix="public"'


def rate(metric: str, of: str, by: str = "job") -> str:
    """Return how often a counter rises in a second, summed by labels; one number if by is ""."""
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate({metric}{{{of}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, of: str, by: str = "job") -> str:
    """Return a quantile of a histogram, by labels."""
    labels = f"{by}, le" if by else "le"
    return (
        f"histogram_quantile({share}, "
        f"sum by ({labels}) (rate({histogram}_bucket{{{of}}}[$__rate_interval])))"
    )


def errors(of: str, by: str = "job") -> str:
    """Return the share of a service's answers that are 5xx: 0 where there was none so far."""
    failed = rate("http_requests_total", f'{of},status=~"5.."', by)
    every = rate("http_requests_total", of, by)
    return f"({failed} or 0 * {every}) / ({every} > 0)"


def gateway_errors() -> str:
    """Return the share of the gateway's answers that are 5xx."""
    failed = rate("envoy_http_downstream_rq_xx", f'{OF_PUBLIC},envoy_response_code_class="5"', "")
    return f"{failed} / ({rate('envoy_http_downstream_rq_xx', OF_PUBLIC, '')} > 0)"


def gateway_duration(share: float) -> str:
    """Return a quantile of how long the gateway's answers take, in milliseconds; no streams."""
    of = f"{OF_GATEWAY},{timed_clusters(topology.load())}"
    return quantile(share, "envoy_cluster_upstream_rq_time", of, "")


def highest(gauge: str, of: str, by: str = "job") -> str:
    """Return the largest value over the replicas."""
    return f"max by ({by}) ({gauge}{{{of}}})" if by else f"max({gauge}{{{of}}})"


def breakers(of: str) -> str:
    """Return the state of each breaker, the worst over the replicas."""
    return highest("circuit_breaker_state", of, "job, peer")


def budget(slo: str, of: str = OF, label: str = "job") -> str:
    """Return what is left of the error budget, with the service in `label`."""
    left = f'min by (service) (slipway:slo_budget_remaining:ratio30d{{{of},slo="{slo}"}})'
    if label == "service":
        return left
    return f'sum by ({label}) (label_replace({left}, "{label}", "$1", "service", "(.+)"))'


def burning(severity: str, of: str = OF) -> str:
    """Return how many alerts of a severity fire."""
    return f'count(ALERTS{{{of},alertstate="firing",severity="{severity}"}}) or vector(0)'
