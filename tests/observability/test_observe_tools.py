"""`make observe` without its programs: what it would scrape, start, and say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from observability import dashboards
from scripts.local.home import Home, RunnerError
from scripts.local.options import Options
from scripts.observe import config, engines
from scripts.observe.engines import GRAFANA, JAEGER, PROMETHEUS, Engine, Found, find
from scripts.observe.stack import Choice, Observe
from scripts.observe.targets import follow, targets, trace_view
from scripts.topology import ROOT

STATUS = {
    "phase": "ready",
    "processes": [
        {"name": "traces", "url": "http://localhost:8198", "metrics": ""},
        {"name": "orders", "state": "held", "metrics": "http://127.0.0.1:8105/metrics"},
        {"name": "gateway", "metrics": "http://127.0.0.1:8199/stats/prometheus"},
    ],
}


def test_targets_are_labelled_as_in_a_cluster() -> None:
    """Each by its service; a stopped one too; who has no metrics is none."""
    found = {each["labels"]["job"]: each for each in targets(STATUS)}
    assert found.keys() == {"orders", "gateway"}
    assert found["orders"]["targets"] == ["127.0.0.1:8105"]
    assert found["gateway"]["labels"] == {
        "job": "gateway",
        "namespace": "local",
        "__metrics_path__": "/stats/prometheus",
    }
    assert targets(None) == []
    assert trace_view(STATUS) == "http://localhost:8198"
    assert trace_view(None) is None


async def test_a_platform_that_does_not_run_has_no_targets(tmp_path: Path) -> None:
    """What a run left behind in status.json is not scraped."""
    home = Home(tmp_path)
    home.make()
    home.status.write_text(json.dumps(STATUS))
    file = tmp_path / "targets.json"
    task = asyncio.create_task(follow(home, file))
    while not file.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert json.loads(file.read_text()) == []


def test_a_binary_comes_before_docker() -> None:
    def which(name: str) -> str | None:
        return f"/opt/{name}" if name == "grafana-server" else None

    assert find(GRAFANA, which, lambda: True) == Found(GRAFANA, "/opt/grafana-server")
    assert find(JAEGER, which, lambda: True) == Found(JAEGER)
    assert find(PROMETHEUS, which, lambda: False) is None


def test_a_container_sees_its_folders_and_this_network() -> None:
    command = Found(PROMETHEUS).command("--flag", folders=[Path("/data")], env={"A": "b"})
    assert command[:3] == ("docker", "run", "--rm")
    words = " ".join(command)
    assert "--network host" in words
    assert "--volume /data:/data" in words
    assert "--env A=b" in words
    assert words.endswith(f"{PROMETHEUS.image} --flag")


def test_containers_are_those_of_the_cluster() -> None:
    """The images of charts/observability, to the version."""
    values = yaml.safe_load((ROOT / "charts" / "observability" / "values.yaml").read_text())
    for engine in (PROMETHEUS, GRAFANA, JAEGER):
        image = values[engine.name]["image"]
        assert engine.image == f"{image['repository']}:{image['tag']}"


def test_docker_without_a_daemon_is_no_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client alone starts nothing."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert not engines.docker_works()
    if sys.platform == "linux":
        docker.write_text("#!/bin/sh\nexit 0\n")
        assert engines.docker_works()


def none_but(*names: str):
    """A machine that has binaries of these names only."""

    def look(engine: Engine) -> Found | None:
        return Found(engine, f"/opt/{engine.name}") if engine.name in names else None

    return look


def test_without_prometheus_one_line_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="apt-get install") as caught:
        Observe(Options(home=Home(tmp_path)), Choice(), none_but("grafana"))
    assert "\n" not in str(caught.value)
    assert caught.value.code == 3


def test_what_is_missing_is_said_and_the_rest_runs(tmp_path: Path) -> None:
    stack = Observe(Options(home=Home(tmp_path)), Choice(), none_but("prometheus"))
    stack.options.home.make()
    specs = asyncio.run(stack.prepare())
    assert [spec.name for spec in specs] == ["prometheus"]
    words = list(stack.closing_words())
    for engine in (GRAFANA, JAEGER):
        assert engine.missing in words
        assert "\n" not in engine.missing
    assert any("does not run" in word for word in words)
    assert (tmp_path / "observe" / "run" / "targets.json").parent.is_dir()


def test_everything_is_wired_where_everything_is(tmp_path: Path) -> None:
    """Grafana finds Prometheus, the committed dashboards, and Jaeger for its exemplars."""
    stack = Observe(
        Options(home=Home(tmp_path)), Choice(), none_but("prometheus", "grafana", "jaeger")
    )
    stack.options.home.make()
    specs = {spec.name: spec for spec in asyncio.run(stack.prepare())}
    assert specs.keys() == {"prometheus", "grafana", "jaeger"}
    assert "--enable-feature=exemplar-storage" in specs["prometheus"].argv
    assert specs["grafana"].argv[:2] == ("/opt/grafana", "server")
    provisioning = Path(specs["grafana"].env["GF_PATHS_PROVISIONING"])
    sources = yaml.safe_load((provisioning / "datasources" / "slipway.yaml").read_text())
    found = {each["uid"]: each for each in sources["datasources"]}
    assert found["prometheus"]["url"] == "http://127.0.0.1:9090"
    assert found["prometheus"]["jsonData"]["exemplarTraceIdDestinations"] == [
        {"name": "trace_id", "datasourceUid": "jaeger"}
    ]
    used = {uid for board in dashboards.committed() for uid in source_uids(board)}
    assert used <= {*found, "-- Grafana --", "grafana"}
    boards = yaml.safe_load((provisioning / "dashboards" / "slipway.yaml").read_text())
    folder = Path(boards["providers"][0]["options"]["path"])
    assert list(folder.glob(dashboards.PATTERN))
    assert Path(specs["grafana"].env["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).exists()
    for spec in specs.values():
        assert all("127.0.0.1" in url for url in spec.ready_urls)


def source_uids(part: object) -> set[str]:
    """The data sources that a dashboard names."""
    if isinstance(part, list):
        return {uid for each in part for uid in source_uids(each)}
    if not isinstance(part, dict):
        return set()
    source = part.get("datasource")
    mine = {source["uid"]} if isinstance(source, dict) and "uid" in source else set()
    return mine | {uid for each in part.values() for uid in source_uids(each)}


def test_exemplars_lead_to_the_trace_view_without_jaeger() -> None:
    text = config.data_sources(9090, None, "http://localhost:8198")
    [source] = yaml.safe_load(text)["datasources"]
    # Two dollars: Grafana replaces variables in its own files.
    assert source["jsonData"]["exemplarTraceIdDestinations"] == [
        {"name": "trace_id", "url": "http://localhost:8198/trace/$${__value.raw}"}
    ]
    [alone] = yaml.safe_load(config.data_sources(9090, None, None))["datasources"]
    assert "exemplarTraceIdDestinations" not in alone["jsonData"]


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("scripts.observe", 3, "apt-get install"),
        ("scripts.traces", 3, "make up TRACES=1"),
    ],
)
def test_the_commands_refuse_in_one_line(module: str, code: int, said: str, tmp_path: Path) -> None:
    """Where nothing is installed and nothing runs."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "SLIPWAY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_traces_go_to_one_place_only() -> None:
    """The view and an endpoint of one's own at once: refused, naming both."""
    with pytest.raises(RunnerError, match="SLIPWAY_OTLP_ENDPOINT") as caught:
        Options.from_environment({"SLIPWAY_TRACES": "1", "SLIPWAY_OTLP_ENDPOINT": "http://a"})
    assert caught.value.code == 2


def test_traces_are_on_or_off() -> None:
    """Every usual word is understood; any other is refused with the name and the fix."""
    for words, on in ((("1", "true", "yes", "On"), True), (("0", "False", "no", "off", ""), False)):
        for word in words:
            assert Options.from_environment({"SLIPWAY_TRACES": word}).traces is on
    with pytest.raises(RunnerError, match=r"^SLIPWAY_TRACES: 'maybe' .*; write 1 or 0$") as caught:
        Options.from_environment({"SLIPWAY_TRACES": "maybe"})
    assert caught.value.code == 2
