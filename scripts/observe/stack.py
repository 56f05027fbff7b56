"""The programs as a platform that the local runner runs: started together, stopped by Ctrl-C."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.local.home import Home, RunnerError
from scripts.local.options import Options
from scripts.local.ports import pick_free
from scripts.local.process import Spec
from scripts.local.stack import Stack
from scripts.observe import config
from scripts.observe.engines import GRAFANA, JAEGER, PROMETHEUS, Engine, Found, find
from scripts.observe.targets import follow, running, trace_view
from scripts.topology import ROOT

RULES = ROOT / "observability" / "rules"
DASHBOARDS = ROOT / "observability" / "dashboards"
JAEGER_URL = "http://127.0.0.1:16686"
OTLP_URL = "http://127.0.0.1:4318"
_STOP_SECONDS = 8.0


@dataclass(frozen=True)
class Choice:
    """What a person may choose. A port of 0 means: any free one."""

    prometheus_port: int = 9090
    grafana_port: int = 3000
    rules: Path = RULES
    interval: str = "5s"


class Observe(Stack):
    """Prometheus, and Grafana and Jaeger where they can be had."""

    def __init__(
        self,
        options: Options,
        choice: Choice,
        find_engine: Callable[[Engine], Found | None] = find,
    ) -> None:
        """Look for the programs. `options.home` is that of the platform to observe.

        Raises:
            RunnerError: there is no Prometheus.
        """
        self._watched = options.home
        super().__init__(replace(options, home=home_of(options.home)))
        first, second = pick_free(2)
        self._choice = replace(
            choice,
            prometheus_port=choice.prometheus_port or first,
            grafana_port=choice.grafana_port or second,
        )
        self._found = {engine.name: find_engine(engine) for engine in (PROMETHEUS, GRAFANA, JAEGER)}
        if self._found["prometheus"] is None:
            raise RunnerError(PROMETHEUS.missing, code=3)
        self._follower: asyncio.Task[None] | None = None

    @property
    def ports(self) -> Mapping[str, tuple[int, str]]:
        """The ports that can be moved."""
        found = {"Prometheus": (self._choice.prometheus_port, "SLIPWAY_PROMETHEUS_PORT")}
        if self._found["grafana"]:
            found["Grafana"] = (self._choice.grafana_port, "SLIPWAY_GRAFANA_PORT")
        return found

    async def prepare(self) -> Sequence[Spec]:
        """Write the configurations, and begin to follow the platform."""
        targets = self.options.home.run / "targets.json"
        self._follower = asyncio.create_task(follow(self._watched, targets))
        specs = [self._prometheus(targets)]
        if (grafana := self._found["grafana"]) is not None:
            specs.append(self._grafana(grafana))
        if (jaeger := self._found["jaeger"]) is not None:
            specs.append(self._jaeger(jaeger))
        return specs

    def _prometheus(self, targets: Path) -> Spec:
        found, choice = self._found["prometheus"], self._choice
        assert found is not None
        file = self._write(
            "prometheus.yml", config.prometheus(targets, choice.rules, choice.interval)
        )
        data = self._folder("prometheus")
        flags = config.prometheus_flags(file, data, choice.prometheus_port)
        url = f"http://127.0.0.1:{choice.prometheus_port}"
        return Spec(
            name="prometheus",
            argv=found.command(*flags, folders=(self.options.home.root, choice.rules)),
            port=choice.prometheus_port,
            env=dict(os.environ),
            ready_urls=(f"{url}/-/ready",),
            stop_seconds=_STOP_SECONDS,
            url=f"http://localhost:{choice.prometheus_port}",
        )

    def _grafana(self, found: Found) -> Spec:
        choice, data = self._choice, self._folder("grafana")
        jaeger = JAEGER_URL if self._found["jaeger"] else None
        view = trace_view(running(self._watched))
        provisioning = self._folder("provisioning")
        self._write(
            "data/provisioning/datasources/slipway.yaml",
            config.data_sources(choice.prometheus_port, jaeger, view),
        )
        self._write(
            "data/provisioning/dashboards/slipway.yaml", config.dashboard_provider(DASHBOARDS)
        )
        settings = config.grafana_environment(
            data, provisioning, DASHBOARDS / "slipway-overview.json", choice.grafana_port
        )
        words: tuple[str, ...] = ()
        if found.binary is not None:
            subcommand = ("server",) if Path(found.binary).name == "grafana" else ()
            words = (*subcommand, *_homepath(Path(found.binary)))
        return Spec(
            name="grafana",
            argv=found.command(*words, folders=(self.options.home.root, DASHBOARDS), env=settings),
            port=choice.grafana_port,
            env={**os.environ, **settings},
            ready_urls=(f"http://127.0.0.1:{choice.grafana_port}/api/health",),
            stop_seconds=_STOP_SECONDS,
            url=f"http://localhost:{choice.grafana_port}",
        )

    def _jaeger(self, found: Found) -> Spec:
        settings = {"JAEGER_LISTEN_HOST": "127.0.0.1"}
        return Spec(
            name="jaeger",
            argv=found.command(env=settings),
            port=16686,
            env={**os.environ, **settings},
            ready_urls=(JAEGER_URL,),
            stop_seconds=_STOP_SECONDS,
            url=JAEGER_URL,
        )

    def _folder(self, name: str) -> Path:
        folder = self.options.home.data / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _write(self, name: str, text: str) -> Path:
        file = self.options.home.root / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def closing_words(self) -> Sequence[str]:
        """What is missing, one line each, and where to look."""
        words = [engine.missing for engine in (GRAFANA, JAEGER) if self._found[engine.name] is None]
        if self._found["jaeger"]:
            words.append(f"Traces go to Jaeger from `SLIPWAY_OTLP_ENDPOINT={OTLP_URL} make up`.")
        if running(self._watched) is None:
            words.append("Slipway does not run; its targets appear when it does (`make up`).")
        url = f"http://localhost:{self._choice.prometheus_port}"
        return ["", *words, f"Targets: {url}/targets  alerts: {url}/alerts", ""]


def home_of(platform: Home) -> Home:
    """Return the directory of this stack: inside the platform's own."""
    return Home(platform.root / "observe")


def _homepath(binary: Path) -> tuple[str, ...]:
    """Return the option that tells Grafana where its own files are, if they are found."""
    real = binary.resolve()
    for folder in (
        real.parent.parent,
        real.parent.parent / "share/grafana",
        Path("/usr/share/grafana"),
    ):
        if (folder / "conf" / "defaults.ini").exists():
            return ("--homepath", str(folder))
    return ()
