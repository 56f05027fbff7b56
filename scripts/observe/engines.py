"""The programs: which are here, as a binary or by Docker, and how each is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_DOCKER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One program. `missing` says in one line what to install."""

    name: str
    binaries: tuple[str, ...]
    image: str
    missing: str


PROMETHEUS = Engine(
    "prometheus",
    ("prometheus",),
    "prom/prometheus:v3.14.0",
    "no Prometheus; install it (Debian: apt-get install --no-install-recommends prometheus; "
    "macOS: brew install prometheus) or start Docker",
)
GRAFANA = Engine(
    "grafana",
    ("grafana", "grafana-server"),
    "grafana/grafana:12.4.2",
    "no Grafana, so no dashboards; install it (grafana.com/grafana/download; "
    "macOS: brew install grafana) or start Docker",
)
JAEGER = Engine(
    "jaeger",
    ("jaeger",),
    "jaegertracing/jaeger:2.20.0",
    "no Jaeger; install it (jaegertracing.io/download) or start Docker; "
    "`make up TRACES=1` shows traces without it",
)


@dataclass(frozen=True, slots=True)
class Found:
    """A program that can be started: a binary, or else an image."""

    engine: Engine
    binary: str | None = None

    def command(
        self, *words: str, folders: Iterable[Path] = (), env: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Return the command; in a container `folders` are where they are here."""
        if self.binary is not None:
            return (self.binary, *words)
        options = ["--rm", "--name", f"slipway-{self.engine.name}", "--network", "host"]
        options += ["--user", f"{os.getuid()}:{os.getgid()}"]
        for folder in folders:
            options += ["--volume", f"{folder}:{folder}"]
        for key, value in (env or {}).items():
            options += ["--env", f"{key}={value}"]
        return ("docker", "run", *options, self.engine.image, *words)


def find(
    engine: Engine,
    which: Callable[[str], str | None] = shutil.which,
    docker: Callable[[], bool] | None = None,
) -> Found | None:
    """Return how to start `engine`, or None when it is neither installed nor to be had."""
    for binary in engine.binaries:
        if (path := which(binary)) is not None:
            return Found(engine, path)
    return Found(engine) if (docker or docker_works)() else None


def docker_works() -> bool:
    """Whether containers can be started that share this machine's network: on Linux only."""
    if sys.platform != "linux" or shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(
            ["docker", "info"], capture_output=True, timeout=_DOCKER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
