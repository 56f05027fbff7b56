"""Each alert leads to somebody and to a page, and the pages name only what exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from observability.dashboards import committed, queries
from scripts.topology import ROOT, load
from tests.observability import exposed
from tests.observability.promtool import alerts

RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = sorted({alert for _, alert, _ in alerts()})
SECTIONS = ["First look", "Commands", "Mend", "Afterwards"]
OURS = {*load().services, "gateway"}
PROGRAMS = {"kubectl", "helm", "make", ".venv/bin/python", "curl", "echo"}


def page(alert: str) -> str:
    """Return the page of an alert."""
    return (RUNBOOKS / f"{alert}.md").read_text()


def severity(alert: str) -> str:
    """Return how the page of an alert begins: its severities, as the rules state them."""
    found = {r["labels"]["severity"] for (_, name, _), r in alerts().items() if name == alert}
    return "Page" if "page" in found else "Ticket"


def commands(alert: str) -> list[str]:
    """Return the lines of a page's block of commands, without the remarks."""
    (block,) = re.findall(r"```sh\n(.*?)```", page(alert), re.DOTALL)
    return [re.sub(r"\s{2,}#.*", "", line) for line in block.splitlines()]


def known_metrics() -> set[str]:
    """Return the metrics of all rules and panels; that they exist is tested with the panels."""
    texts = [rule["expr"] for rule in alerts().values()]
    texts += [re.sub(r"\$(\w+)", "5m", query.expr) for query in queries()]
    found = {metric for text in texts for metric, _ in exposed.named(text)}
    return found | {re.sub("_(bucket|count|sum)$", "", metric) for metric in found}


@pytest.mark.parametrize("key", sorted(alerts()), ids="-".join)
def test_each_alert_leads_to_somebody_and_to_a_page(key: tuple[str, str, str]):
    rule: dict[str, Any] = alerts()[key]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["labels"]["owner"]
    assert rule["labels"]["service"]
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()


def test_every_page_has_its_alert():
    """And every service has its page, with the owner that its service.yaml names."""
    pages = {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {*ALERTS, *OURS}
    for service in load():
        assert service.slo.runbook == f"docs/runbooks/{service.name}.md"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_page_is_short_and_complete(alert: str):
    text = page(alert)
    assert text.startswith(f"# {alert}\n\n**{severity(alert)}")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert len(text.split()) < 420
    assert len(commands(alert)) >= 2


@pytest.mark.parametrize("alert", ALERTS)
def test_the_commands_of_a_page_exist(alert: str):
    """Programs, targets of the Makefile, modules, services."""
    makefile = (ROOT / "Makefile").read_text()
    for line in commands(alert):
        words = shlex.split(re.sub(r"<[^>]*>", "something", line))
        assert words[0] in PROGRAMS, line
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:.*## ", makefile, re.MULTILINE), line
            for variable in (word.partition("=")[0] for word in words[2:] if "=" in word):
                assert re.search(rf"\$\((call on,)?{variable}\b", makefile), line
        for module in re.findall(r"python -m (\w+)", line):
            assert importlib.util.find_spec(module), line
        for service in re.findall(r"(?:SERVICE=|/name=|exec deploy/|hpa )([\w-]+)", line):
            assert service in {*OURS, "postgresql"}, line


@pytest.mark.parametrize("name", [*ALERTS, "gateway"])
def test_the_metrics_and_panels_of_a_page_exist(name: str):
    """What looks like a metric is one; dashboards and panels have these titles."""
    text = page(name)
    written = {
        word
        for word in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", text)
        if re.match("(auth|background|circuit|db|envoy|event|http|kube|orders|outbox)_", word)
    } - {"envoy_local_http_ratelimit_prefix"}
    assert written - known_metrics() == set()
    boards = {board["title"]: board for board in committed()}
    titles = {panel["title"] for board in boards.values() for panel in board["panels"]}
    for italic in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text):
        assert italic in boards or italic in titles, italic


def test_some_metric_stands_on_every_page():
    """A page without a number to look at is an opinion."""
    known = known_metrics() | {"up"}
    without = [a for a in ALERTS if not known & set(re.findall(r"`(\w+)`", page(a)))]
    assert without == []


def test_the_list_of_alerts_is_whole():
    """docs/alerts.md names each alert with its severity, and every page it links exists."""
    text = (ROOT / "docs" / "alerts.md").read_text()
    for alert in ALERTS:
        assert alert in text
        if not alert.endswith("Burn"):
            assert f"| [{alert}](runbooks/{alert}.md) | {severity(alert).lower()} |" in text
    for file in (RUNBOOKS.parent / "alerts.md", *RUNBOOKS.glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+\.md)\)", file.read_text()):
            assert Path(file.parent, link).is_file(), f"{file.name}: {link}"
