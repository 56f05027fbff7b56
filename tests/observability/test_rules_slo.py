"""The SLO rules, by Prometheus itself: which burn wakes whom, and what stays silent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.rules.slo import GATEWAY
from scripts.gateway import merge
from scripts.topology import ROOT, load
from tests.charts import kube
from tests.charts.service.cases import case, manifests
from tests.observability.promtool import alerts, check_rules, needs_promtool, series

pytestmark = needs_promtool

WINDOWS = {"1h": (14.4, "page"), "6h": (6, "page"), "1d": (3, "ticket"), "3d": (1, "ticket")}
NAMES = [*load().services, "gateway"]
PER_MINUTE = 6000


@dataclass(frozen=True)
class Promises:
    """The objectives of one service, and the series that show how they are kept."""

    name: str
    owner: str
    availability: float
    percent: float
    milliseconds: int

    def budgets(self) -> dict[str, float]:
        """Return the share of requests that may be bad, by promise."""
        return {
            "availability": round(1 - self.availability / 100, 6),
            "latency": round(1 - self.percent / 100, 6),
        }

    def traffic(self, times: float, minutes: int, namespace: str = "slipway") -> list[Any]:
        """Return the series of steady traffic that burns both budgets so many times too fast."""
        budgets = self.budgets()
        return self.requests(
            f"0+{PER_MINUTE * (1 - budgets['availability'] * times):.3f}x{minutes}",
            f"0+{PER_MINUTE * budgets['availability'] * times:.3f}x{minutes}",
            f"0+{PER_MINUTE * (1 - budgets['latency'] * times):.3f}x{minutes}",
            f"0+{PER_MINUTE}x{minutes}",
            namespace,
        )

    def requests(
        self, good: str, failed: str, quick: str, timed: str, namespace: str = "slipway"
    ) -> list[dict[str, str]]:
        """Return the series as the service, or Envoy, gives them."""
        to = {"job": self.name, "namespace": namespace, "instance": "a"}
        timed_by, streams = dict(to), list[dict[str, str]]()
        if self.name == "gateway":
            to["envoy_http_conn_manager_prefix"] = "public"
            timed_by["envoy_cluster_name"] = "items"
            answers, time = "envoy_http_downstream_rq_xx", "envoy_cluster_upstream_rq_time"
            le = str(self.milliseconds)
            # Streams that end take long, and the cluster of the keys is nobody's request.
            for cluster in ("stream", "_jwks"):
                other = {**timed_by, "envoy_cluster_name": cluster}
                streams += [
                    series(f"{time}_bucket", "0x10000", **other, le=le),
                    series(f"{time}_count", f"0+{PER_MINUTE}x10000", **other),
                ]
            by = "envoy_response_code_class", ("2", "5")
        else:
            answers, time = "http_requests_total", "http_request_duration_seconds"
            le = str(self.milliseconds / 1000)
            by = "status", ("200", "503")
        return [
            series(answers, good, **to, **{by[0]: by[1][0]}),
            series(answers, failed, **to, **{by[0]: by[1][1]}),
            series(f"{time}_bucket", quick, **timed_by, le=le),
            series(f"{time}_bucket", timed, **timed_by, le="+Inf"),
            series(f"{time}_count", timed, **timed_by),
            *streams,
        ]

    def expected(
        self, at: str, windows: Iterable[str], shares: dict[str, str], namespace: str = "slipway"
    ) -> list[dict[str, Any]]:
        """Return what must fire at a time, and nothing else; `shares` is what the alert says."""
        says = {
            "availability": ("ErrorBudgetBurn", "failed"),
            "latency": ("LatencyBudgetBurn", f"took longer than {self.milliseconds} ms"),
        }
        return [
            {
                "eval_time": at,
                "alertname": alert,
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "service": self.name, "slo": slo, "owner": self.owner,
                            "severity": WINDOWS[window][1], "window": window,
                            "namespace": namespace,
                        },
                        "exp_annotations": {
                            **alerts()[f"slo-{self.name}", alert, window]["annotations"],
                            "summary": f"{self.name}: {shares[slo]} of the requests of the last "
                            f"{window} {said}",
                        },
                    }
                    for window in windows
                ],
            }
            for slo, (alert, said) in says.items()
        ]  # fmt: skip

    def shares(self, times: float) -> dict[str, str]:
        """Return the bad share in words, by promise."""
        return {slo: f"{100 * budget * times:.4g}%" for slo, budget in self.budgets().items()}

    def burn(self, times: float, windows: Iterable[str]) -> dict[str, Any]:
        """Return a test: after four hours of this burn, the alerts of these windows fire."""
        return {
            "interval": "1m",
            "input_series": self.traffic(times, 240),
            "alert_rule_test": self.expected("4h", windows, self.shares(times)),
        }


def promises(name: str) -> Promises:
    """Return the promises as service.yaml, or gateway.yaml, states them."""
    file = GATEWAY if name == "gateway" else Path("services", name, "service.yaml")
    slo = yaml.safe_load((ROOT / file).read_text())["slo"]
    latency = slo["latency"]
    return Promises(
        name, slo["owner"], slo["availability"], latency["percent"], latency["milliseconds"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_fires_and_stays_silent(name: str, tmp_path: Path):
    """A fast burn raises all eight; one that the budget allows raises none, and is recorded."""
    one = promises(name)
    kept = one.burn(0.8, ())
    budget = f'{{namespace="slipway",service="{name}",slo="%s"}}'
    kept["promql_expr_test"] = [
        {
            "expr": f"round({metric}, 0.0001)",
            "eval_time": "4h",
            "exp_samples": [
                {"labels": budget % slo, "value": values[slo]}
                for slo in ("availability", "latency")
            ],
        }
        for metric, values in (
            ("slipway:slo_budget_remaining:ratio30d", dict.fromkeys(one.budgets(), 0.2)),
            ("slipway:slo_objective:ratio", {k: 1 - v for k, v in one.budgets().items()}),
        )
    ]
    check_rules(tmp_path, [one.burn(20, WINDOWS), kept], f"slo-{name}", "4m")


@pytest.mark.parametrize("name", ["orders", "gateway"])
def test_each_speed_has_its_alert(name: str, tmp_path: Path):
    """A burn between two thresholds raises the slower ones only."""
    one = promises(name)
    burns = [one.burn(12, ("6h", "1d", "3d")), one.burn(4, ("1d", "3d")), one.burn(1.5, ("3d",))]
    check_rules(tmp_path, burns, f"slo-{name}", "4m")


def firing(at: str, *, count: int = 1) -> dict[str, Any]:
    """Return the test that the fastest alert on errors fires at a time, or does not (0)."""
    return {
        "expr": "count(ALERTS{alertname='ErrorBudgetBurn',alertstate='firing',window='1h'})",
        "eval_time": at,
        "exp_samples": [{"labels": "{}", "value": count}] if count else [],
    }


def test_the_first_page_comes_within_minutes_and_goes_with_the_fault(tmp_path: Path):
    """An outage of all requests pages after five minutes; seven after its end that page is over."""
    one = promises("orders")
    good = "0+6000x60 360000+0x9 366000+6000x40"
    failed = "0+0x60 6000+6000x9 60000+0x40"
    test = {
        "interval": "1m",
        "input_series": one.requests(good, failed, "0+6000x111", "0+6000x111"),
        "alert_rule_test": [
            {"eval_time": "62m", "alertname": "ErrorBudgetBurn", "exp_alerts": []},
            {"eval_time": "70m", "alertname": "LatencyBudgetBurn", "exp_alerts": []},
            # The slower page takes half an hour; the tickets would need more than an hour.
            {"eval_time": "105m", "alertname": "ErrorBudgetBurn", "exp_alerts": []},
        ],
        "promql_expr_test": [firing("65m"), firing("70m"), firing("77m", count=0)],
    }
    check_rules(tmp_path, [test], "slo-orders")


def test_a_handful_of_failures_wakes_nobody(tmp_path: Path):
    """Half of a few requests is no incident; as few, but more than a handful of failures, is."""
    one = promises("orders")
    # A request a minute, of which one in twelve fails: five an hour.
    some = "0+0x11 1+0x11 2+0x11 3+0x11 4+0x11"
    quiet = {
        "interval": "1m",
        "input_series": one.requests("0+1x60", some, "0+1x60", "0+1x60"),
        "alert_rule_test": one.expected("55m", (), {}),
    }
    down = {
        "interval": "1m",
        "input_series": one.requests("0+0x60", "0+1x60", "0+1x60", "0+1x60"),
        "promql_expr_test": [firing("50m")],
    }
    check_rules(tmp_path, [quiet, down], "slo-orders")


def test_no_traffic_is_no_fault_and_no_number(tmp_path: Path):
    """Nothing was asked, nothing failed: no ratio, no alert. Without a 5xx the ratio is 0."""
    one = promises("orders")
    idle = one.requests("0+0x60", "0+0x60", "0+0x60", "0+0x60")
    well = [s for s in one.traffic(0, 60) if "503" not in s["series"]]
    ratio = 'slipway:slo_bad:ratio_rate1h{slo="availability"}'
    labels = 'slipway:slo_bad:ratio_rate1h{namespace="slipway",service="orders",slo="availability"}'
    tests = [
        {
            "interval": "1m",
            "input_series": given,
            "alert_rule_test": one.expected("1h", (), {}),
            "promql_expr_test": [{"expr": ratio, "eval_time": "1h", "exp_samples": samples}],
        }
        for given, samples in ((idle, []), (well, [{"labels": labels, "value": 0}]))
    ]
    check_rules(tmp_path, tests, "slo-orders")


def test_namespaces_are_judged_apart(tmp_path: Path):
    """Staging burns, production does not: one namespace is named, by its own numbers."""
    one = promises("orders")
    test = {
        "interval": "1m",
        "input_series": one.traffic(20, 240, "staging") + one.traffic(0.5, 240, "production"),
        "alert_rule_test": one.expected("4h", WINDOWS, one.shares(20), "staging"),
    }
    check_rules(tmp_path, [test], "slo-orders", "4m")


def test_the_gateways_bound_is_found_as_each_prometheus_stores_it(tmp_path: Path):
    """Envoy writes le="1000"; Prometheus 3 keeps it as 1000.0, and an alert must not see a void."""
    one = promises("gateway")
    given = [
        {**s, "series": s["series"].replace('le="1000"', 'le="1000.0"')}
        for s in one.traffic(20, 240)
    ]
    assert any('le="1000.0"' in s["series"] for s in given)
    test = {
        "interval": "1m",
        "input_series": given,
        "alert_rule_test": one.expected("4h", WINDOWS, one.shares(20)),
    }
    check_rules(tmp_path, [test], "slo-gateway", "4m")


def test_a_release_has_the_rules_of_the_file():
    """What the operator gets from the chart and the plain file differ in the namespace only."""
    values = load()["orders"].values
    enabled = {
        "monitoring": {"prometheusRule": {"enabled": True}},
        "assumeApis": ["monitoring.coreos.com/v1"],
    }
    release = kube.of_kind(manifests(merge(values, enabled)), "PrometheusRule", "orders")
    text = (ROOT / "observability" / "rules" / "slo-orders.yaml").read_text()
    groups = yaml.safe_load(text)["groups"]
    for mine, plain in zip(release["spec"]["groups"], groups, strict=True):
        for rule, other in zip(mine["rules"], plain["rules"], strict=True):
            assert 'namespace="slipway"' in rule["expr"]
            assert rule["expr"].replace('namespace="slipway",', "") == other.pop("expr")
            assert {k: v for k, v in rule.items() if k != "expr"} == other


def test_a_runbook_is_a_page_or_a_link():
    """A path of the tree stands behind the address of the tree; without one, the alert's page."""

    def runbooks(base: str, runbook: str | None) -> set[str]:
        rule = {"enabled": True, "runbookBaseUrl": base}
        values = merge(case("full"), {"monitoring": {"prometheusRule": rule}})
        values["slo"] = {k: v for k, v in values["slo"].items() if k != "runbook"}
        if runbook:
            values["slo"]["runbook"] = runbook
        groups = kube.of_kind(manifests(values), "PrometheusRule", "books")["spec"]["groups"]
        found = [r for group in groups for r in group["rules"] if "alert" in r]
        return {r["annotations"]["runbook_url"] for r in found}

    base = "https://git.example.org/slipway/"
    assert runbooks("", "docs/runbooks/books.md") == {"docs/runbooks/books.md"}
    assert runbooks(base, "docs/runbooks/books.md") == {f"{base}docs/runbooks/books.md"}
    assert runbooks(base, "https://example.org/x") == {"https://example.org/x"}
    assert runbooks("", None) == {
        "docs/runbooks/ErrorBudgetBurn.md",
        "docs/runbooks/LatencyBudgetBurn.md",
    }
