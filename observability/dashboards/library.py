"""How our dashboards are built: one look, one set of units, limits and links for all of them.

A panel is made by `graph`, `number` or `table` from queries (`Query`); `Board` puts panels in rows
and adds what every dashboard has: variables, rollouts and alerts as annotations, links to the other
dashboards and to the traces. Colours mean the same everywhere: green is as promised, orange needs
a look, red needs somebody now.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models.text import TextMode

PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="prometheus")
TAG: Final = "slipway"
Panel = TypeVar("Panel")

# The units of Grafana that we use, and no others.
SECONDS, MILLISECONDS, SHARE, BYTES = "s", "ms", "percentunit", "bytes"
PER_SECOND, REQUESTS_PER_SECOND, COUNT, CORES = "ops", "reqps", "short", "cores"
TIMES = "suffix: x"  # how many times too fast

Limits = tuple[float, float]
"""Where orange and red begin; falling if the first is the larger one."""

ERRORS: Final[Limits] = (0.001, 0.01)
LATENCY: Final[Limits] = (0.25, 1)
BUDGET: Final[Limits] = (0.25, 0)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel. `legend` names its series; in a table, its column."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False

    def build(self, ref: str, *, instant: bool = False) -> prometheus.Dataquery:
        """Return it for a panel, a time series or a table."""
        target = prometheus.Dataquery().expr(" ".join(self.expr.split())).ref_id(ref)
        target.datasource(PROMETHEUS).editor_mode(prometheus_models.QueryEditorMode.CODE)
        if instant:
            return target.instant().format(prometheus_models.PromQueryFormat.TABLE)
        target.range().legend_format(self.legend)
        return target.exemplar(exemplar=True) if self.exemplars else target


def traces(service: str) -> str:
    """Return the address of the traces of a service, in the time that the dashboard shows.

    `service` may be a variable of Grafana, such as `${service}`.
    """
    pane = {
        "datasource": "jaeger",
        "queries": [
            {
                "refId": "A",
                "queryType": "search",
                "service": service,
                "datasource": {"type": "jaeger", "uid": "jaeger"},
            }
        ],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = json.dumps({"traces": pane}, separators=(",", ":"))
    return f"/explore?schemaVersion=1&orgId=1&panes={quote(panes, safe='{}[]$:,_')}"


def service_page(service: str) -> str:
    """Return the address of the dashboard of one service, in the time that is shown."""
    return (
        f"/d/slipway-service?var-service={service}&var-namespace=$namespace&${{__url_time_range}}"
    )


BY_SERVICE: Final = (
    ("This service", service_page("${__field.labels.job}")),
    ("Its traces", traces("${__field.labels.job}")),
)
"""Where a click on a series leads that has a service in its label `job`."""

Links = Sequence[tuple[str, str]]


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Limits | None = None,
    links: Links = (),
    stacked: bool = False,
    wide: int = 8,
    most: float | None = None,
) -> timeseries.Panel:
    """Return a panel of lines over time. `most` is the top of its axis."""
    panel = timeseries.Panel().fill_opacity(30 if stacked else 8).line_width(1)
    panel.show_points(common_models.VisibilityMode.NEVER).axis_soft_min(0)
    panel.legend(
        common.VizLegendOptions()
        .show_legend(show_legend=True)
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(common_models.TooltipDisplayMode.MULTI)
        .sort(common_models.SortOrder.DESCENDING)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if limits is not None:
        mode = common_models.GraphTresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(mode))
    if most is not None:
        panel.max(most)
    panel.height(8)
    _ask(panel, queries)
    return _finish(
        panel,
        title=title,
        description=description,
        unit=unit,
        limits=limits,
        links=links,
        wide=wide,
    )


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    limits: Limits | None = None,
    links: Links = (),
    wide: int = 4,
) -> stat.Panel:
    """Return a panel that shows the last value of a query, large."""
    panel = stat.Panel().graph_mode(common_models.BigValueGraphMode.AREA)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).height(4)
    if limits is None:
        panel.color_mode(common_models.BigValueColorMode.NONE)
    else:
        panel.color_mode(common_models.BigValueColorMode.BACKGROUND)
    _ask(panel, (query,))
    return _finish(
        panel,
        title=title,
        description=description,
        unit=unit,
        limits=limits,
        links=links,
        wide=wide,
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: a query with one value for each row."""

    title: str
    unit: str
    expr: str
    limits: Limits | None = None


def table(
    title: str,
    description: str,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[Column],
    *,
    links: Links = (),
    wide: int = 24,
    high: int = 9,
) -> tables.Panel:
    """Return a table: one row for each value of the labels `rows` (label, heading)."""
    panel = tables.Panel().height(high)
    queries = [Query(column.expr, column.title) for column in columns]
    values = {f"Value #{ref}": column for ref, column in zip("ABCDEFGHIJ", columns, strict=False)}
    if len(columns) == 1:
        values = {"Value": columns[0]}
    names = {value: column.title for value, column in values.items()} | dict(rows)
    order = [*(label for label, _ in rows), *values]
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: position for position, name in enumerate(order)},
        "renameByName": names,
    }
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    for column in columns:
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.limits is not None:
            steps = {"mode": "absolute", "steps": [s.to_json() for s in _steps(column.limits)]}
            cell = {"type": "color-background", "mode": "basic"}
            properties += [
                models.DynamicConfigValue(id_val="thresholds", value=steps),
                models.DynamicConfigValue(id_val="custom.cellOptions", value=cell),
            ]
        panel.override_by_name(column.title, properties)
    _ask(panel, queries, instant=True)
    return _finish(
        panel, title=title, description=description, unit=COUNT, limits=None, links=links, wide=wide
    )


def note(title: str, markdown: str, *, wide: int = 24, high: int = 5) -> text.Panel:
    """Return a panel of text."""
    panel = text.Panel().title(title).mode(TextMode.MARKDOWN).content(markdown)
    return panel.span(wide).height(high)


def _ask(panel: Any, queries: Sequence[Query], *, instant: bool = False) -> None:
    for ref, query in zip("ABCDEFGHIJ", queries, strict=False):
        panel.with_target(query.build(ref, instant=instant))


def _finish(
    panel: Panel,
    *,
    title: str,
    description: str,
    unit: str,
    limits: Limits | None,
    links: Links,
    wide: int,
) -> Panel:
    """Give a panel what all of them have; the SDK's panels share no base that says so."""
    made: Any = panel
    made.title(title).description(description).unit(unit).datasource(PROMETHEUS).span(wide)
    made.thresholds(
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps(_steps(limits) if limits else [models.Threshold(color="green")])
    )
    made.data_links([dashboard.DashboardLink(name).url(url) for name, url in links])
    return panel


def _steps(limits: Limits) -> list[models.Threshold]:
    orange, red = limits
    if orange <= red:
        colours: list[tuple[float | None, str]] = [
            (None, "green"), (orange, "orange"), (red, "red"),
        ]  # fmt: skip
    else:
        colours = [(None, "red"), (red, "orange"), (orange, "green")]
    return [models.Threshold(value=value, color=colour) for value, colour in colours]


@dataclass(slots=True)
class Board:
    """A dashboard. `variables` maps a variable to the query of its values.

    `chosen` are variables of which one value is shown at a time; of the others, all at first.
    """

    uid: str
    title: str
    description: str
    variables: dict[str, str] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    rows: list[tuple[str, list[Any]]] = field(default_factory=list)
    service: str = ".*"
    """The services whose rollouts and alerts are marked."""

    def row(self, title: str, *panels: Any) -> None:
        """Add a row of panels, each as wide as it says."""
        self.rows.append((title, list(panels)))

    def document(self) -> dict[str, Any]:
        """Return what Grafana loads."""
        board = dashboard.Dashboard(self.title).uid(self.uid).description(self.description)
        board.tags([TAG]).time("now-1h", "now").refresh("30s").timezone("browser").readonly()
        board.tooltip(models.DashboardCursorSync.CROSSHAIR)
        for name, values in self.variables.items():
            board.with_variable(self._variable(name, values))
        board.link(_others())
        traced = "${service}" if "service" in self.variables else "gateway"
        board.link(
            dashboard.DashboardLink("Traces").type(models.DashboardLinkType.LINK).icon("bolt")
            .url(traces(traced)).tooltip("The traces of this time, in Jaeger").target_blank(
                target_blank=True
            )
        )  # fmt: skip
        numbers = itertools.count(1)
        for title, panels in self.rows:
            board.with_row(dashboard.Row(title).id(next(numbers)))
            for panel in panels:
                board.with_panel(panel.id(next(numbers)))
        found: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
        found["annotations"] = {"list": list(self._annotations())}
        for panel in found["panels"]:
            if panel.get("options", ...) is None:  # the SDK's word for "none given"; not Grafana's
                panel["options"] = {}
        return found

    def _variable(self, name: str, values: str) -> dashboard.QueryVariable:
        variable = dashboard.QueryVariable(name).label(name.capitalize()).query(values)
        variable.datasource(PROMETHEUS).sort(models.VariableSort.ALPHABETICAL_ASC)
        variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        if name in self.chosen:
            return variable
        everything = models.VariableOption(text="All", value="$__all", selected=True)
        return variable.multi(True).include_all(True).all_value(".*").current(everything)

    def _annotations(self) -> Iterable[dict[str, Any]]:
        """Yield rollouts, by the first sight of a version, and alerts. The SDK knows no titles."""
        version = (
            "group by (namespace, job, version, revision) "
            f'(build_info{{namespace=~"$namespace",job=~"{self.service}"}}%s)'
        )
        common_parts = {"datasource": PROMETHEUS.to_json(), "enable": True, "hide": False}
        yield {
            **common_parts,
            "name": "Rollouts",
            "expr": f"{version % ''} unless {version % ' offset 5m'}",
            "step": "60s",
            "titleFormat": "{{job}} {{version}}",
            "textFormat": "{{revision}}",
            "iconColor": "blue",
        }
        yield {
            **common_parts,
            "name": "Alerts",
            "expr": f'ALERTS{{alertstate="firing",service=~"{self.service}"}}',
            "step": "60s",
            "titleFormat": "{{alertname}}: {{service}}",
            "textFormat": "{{severity}}, see docs/runbooks/{{alertname}}.md",
            "iconColor": "red",
        }


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Slipway").type(models.DashboardLinkType.DASHBOARDS)
    link.tags([TAG]).as_dropdown(as_dropdown=True).include_vars(include_vars=True)
    return link.keep_time(keep_time=True)
