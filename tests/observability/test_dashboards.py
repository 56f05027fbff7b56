"""The dashboards: current, complete, and about metrics that exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
import yaml

from observability import dashboards, generated, rules
from observability.dashboards import VARIABLES, committed, queries, substitute
from observability.dashboards.library import BUDGET, ERRORS, LATENCY, Query, graph
from scripts.topology import ROOT, load
from tests.observability import exposed
from tests.observability.promtool import needs_promtool, parse_errors

BOARDS = {board["uid"]: board for board in committed()}
UNITS = {"s", "ms", "percentunit", "bytes", "ops", "reqps", "short", "cores", "suffix: x"}


def panels() -> list[tuple[str, dict[str, Any]]]:
    """Return every panel that shows data, with its dashboard."""
    return [
        (uid, panel)
        for uid, board in BOARDS.items()
        for panel in board["panels"]
        if panel["type"] not in {"row", "text"}
    ]


def rule_queries() -> dict[str, str]:
    """Return the query of each rule, by file and name."""
    found = {}
    for file in rules.FOLDER.glob(rules.PATTERN):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for number, rule in enumerate(group["rules"]):
                name = rule.get("record") or rule["alert"]
                found[f"{group['name']}/{number}/{name}"] = rule["expr"]
    return found


def board_queries() -> dict[str, str]:
    """Return every query of the dashboards, annotations too, as Prometheus gets it."""
    found = {
        f"{query.dashboard}/{number}/{query.panel}": substitute(query.expr)
        for number, query in enumerate(queries())
    }
    for uid, board in BOARDS.items():
        for note in board["annotations"]["list"]:
            found[f"{uid}/{note['name']}"] = substitute(note["expr"])
    return found


def what_is_exposed(folder: Path) -> exposed.Exposed:
    """Return what all services and the gateway expose, and what the rules record."""
    found, tree = exposed.Exposed(), load()
    exposed.scrape_gateway(tree, folder, found)
    anyio.run(exposed.scrape_services, tree, folder, found)
    for name in rule_queries():
        if "slipway:" in name:
            found.labels[name.rpartition("/")[2]] = {"service", "slo"}
    return found


def test_the_committed_files_are_what_the_generators_make():
    """Else: python -m observability.dashboards --write, or observability.rules."""
    for module in (dashboards, rules):
        assert generated.stale(module.FOLDER, module.PATTERN, module.files()) == []


def test_an_outdated_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`--check` fails with one line for each file; `--write` mends all of them."""
    wanted = {"a.json": "1", "b.json": "2"}

    def run(flag: str) -> int:
        return generated.main("some.module", tmp_path, "*.json", lambda: wanted, [flag])

    (tmp_path / "b.json").write_text("old")
    (tmp_path / "c.json").write_text("left over")
    assert run("--check") == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split("/")[-1].split(";")[0] for line in said] == [
        "a.json: missing", "c.json: nothing makes it any more", "b.json: outdated",
    ]  # fmt: skip
    assert all(line.endswith("run: python -m some.module --write") for line in said)
    assert run("--write") == 0
    assert run("--check") == 0


def test_each_dashboard_is_its_own():
    """Uids, titles and the panels' ids are used once; a file is named after its uid."""
    assert {file.stem for file in dashboards.FOLDER.glob("*.json")} == BOARDS.keys()
    assert len(BOARDS) == 7
    titles = Counter(board["title"] for board in BOARDS.values())
    assert set(titles.values()) == {1}
    for board in BOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        assert board["description"].endswith(".")
        names = Counter(panel["title"] for panel in board["panels"] if panel["type"] != "row")
        assert [name for name, times in names.items() if times > 1 or not name] == []


@pytest.mark.parametrize(
    ("uid", "panel"), panels(), ids=lambda v: v if isinstance(v, str) else v["title"]
)
def test_each_panel_says_what_it_shows_and_what_to_do(uid: str, panel: dict[str, Any]):
    """A sentence, a unit of ours, queries to our data source, limits in our colours, room."""
    assert panel["description"].endswith(".")
    assert len(panel["description"].split()) >= 5
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
    assert panel["targets"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(refs) == len(set(refs))
    assert {t["datasource"]["uid"] for t in panel["targets"]} == {"prometheus"}
    colours = [step["color"] for step in defaults["thresholds"]["steps"]]
    assert colours in (["green"], ["green", "orange", "red"], ["red", "orange", "green"])
    values = [step["value"] for step in defaults["thresholds"]["steps"]][1:]
    assert values == sorted(values)
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= 24


def test_no_panel_lies_over_another():
    """Rows are full or end early; none overlaps."""
    for uid, board in BOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{uid}: {panel['title']}"
            taken |= cells


def test_latency_leads_to_traces():
    """Graphs of request durations of services show exemplars; every dashboard links to Jaeger."""
    shown = [
        target["exemplar"]
        for _, panel in panels()
        for target in panel["targets"]
        if panel["type"] == "timeseries"
        and "histogram_quantile(0.99" in target["expr"]
        and "http_request_duration_seconds" in target["expr"]
    ]
    assert len(shown) >= 3
    assert all(shown)
    for board in BOARDS.values():
        (traces,) = [link for link in board["links"] if link["title"] == "Traces"]
        address = unquote(traces["url"])
        assert '"datasource":"jaeger"' in address
        assert '"from":"${__from}"' in address


def test_links_lead_to_dashboards_that_exist():
    text = "".join(file.read_text() for file in dashboards.FOLDER.glob("*.json"))
    linked = set(re.findall(r"/d/([\w-]+)", text))
    assert linked == {"slipway-service"}
    assert linked <= BOARDS.keys()
    assert {v["name"] for v in BOARDS["slipway-service"]["templating"]["list"]} == {
        "namespace", "service",
    }  # fmt: skip


def test_runbooks_that_panels_name_exist():
    named = {
        page
        for _, panel in panels()
        for page in re.findall(r"docs/[\w/]+\.md", panel["description"])
    }
    assert len(named) > 10
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_every_variable_is_known():
    """What Grafana replaces, `substitute` replaces; an unknown variable is an error."""
    for board in BOARDS.values():
        own = {variable["name"] for variable in board["templating"]["list"]}
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                used = set(re.findall(r"\$([a-z_]\w*)", target["expr"]))
                assert used <= own | {"__rate_interval"}, panel["title"]
    assert substitute('up{job="$service"}[$__range]', service="a") == 'up{job="a"}[1h]'
    assert not re.search(r"\$[a-z_]", "".join(board_queries().values()))
    assert VARIABLES.keys() >= {"namespace", "service", "__rate_interval"}
    with pytest.raises(KeyError):
        substitute("$unknown")


@needs_promtool
def test_every_query_parses(tmp_path: Path):
    """Prometheus' own parser takes each of them, and refuses a broken one."""
    assert len(queries()) > 100
    assert parse_errors(tmp_path, board_queries()) == ""
    assert "parse error" in parse_errors(tmp_path, {"broken": "sum(rate(up[5m])"})


def test_every_metric_exists(tmp_path: Path):
    """With the labels that a selector names, else the panel is empty and the alert silent.

    And each `le` is a bound of its histogram: one between two buckets would find nothing.
    """
    known = what_is_exposed(tmp_path)
    wrong, bounded = [], set()
    for where, expr in (board_queries() | rule_queries()).items():
        for metric, labels in exposed.named(expr):
            foreign = exposed.FOREIGN.get(metric)
            have = foreign if foreign is not None else known.labels.get(metric)
            if have is None:
                wrong.append(f"{where}: nothing exposes {metric}")
            elif have and labels - have - exposed.TARGET_LABELS:
                wrong.append(f"{where}: {metric} has no {labels - have - exposed.TARGET_LABELS}")
        for metric, selector in re.findall(r"(\w+_bucket)(\{[^}]*\})", expr):
            for bound in re.findall(r'le=~?"([\d.]+)', selector):
                bounded.add(metric)
                if float(bound) not in known.bounds[metric]:
                    wrong.append(f"{where}: {metric} has no bound {bound}")
    assert sorted(set(wrong)) == []
    assert {"envoy_cluster_upstream_rq_time_bucket", "http_request_duration_seconds_bucket"} <= (
        bounded
    )


def test_foreign_metrics_are_all_used():
    """The list of names that nobody here can check does not grow by itself."""
    text = " ".join([*board_queries().values(), *rule_queries().values()])
    assert [name for name in exposed.FOREIGN if name not in text] == []


def test_the_reader_of_queries_finds_all_metrics():
    """The tests above are worth what this finds."""
    expr = (
        'sum by (job, le) (rate(a_total{x="{y}",z=~"b|c_total"}[5m])) or 0 * d:e:rate5m '
        '/ on (job) group_left (f) label_replace(g, "h", "$1", "i", "(.+)") > 1e3 offset 5m'
    )
    assert dict(exposed.named(expr)) == {"a_total": {"x", "z"}, "d:e:rate5m": set(), "g": set()}


def test_limits_colour_from_green_to_red():
    """A falling pair colours from below: what is left of a budget."""

    def steps(limits: tuple[float, float] | None) -> list[tuple[float | None, str]]:
        panel = graph("t", "d.", "s", Query("up"), limits=limits).build()
        assert panel.field_config is not None
        assert panel.field_config.defaults.thresholds is not None
        return [(s.value, s.color) for s in panel.field_config.defaults.thresholds.steps]

    assert steps(ERRORS) == [(None, "green"), (0.001, "orange"), (0.01, "red")]
    assert steps(BUDGET) == [(None, "red"), (0, "orange"), (0.25, "green")]
    assert steps(None) == [(None, "green")]
    assert LATENCY[0] < LATENCY[1]
