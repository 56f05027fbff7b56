"""The README and the pages tell the truth: their commands run, their links lead somewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from scripts.local.first_order import order_lines
from scripts.local.ports import pick_free
from scripts.topology import SCHEMA, read
from tests.local.platform_handle import ROOT, Platform, eventually

PAGES = sorted(
    page
    for pattern in ("README.md", "docs/**/*.md", "charts/*/README.md", "k8s/README.md")
    for page in ROOT.glob(pattern)
)
DEFAULT_URL = "http://localhost:8080"
# Run elsewhere: the tests by whoever runs this one, the checks by CI, what stays in the foreground
# by tests/observability; and a benchmark is no test.
NOT_HERE = {
    "make test",
    "make test SERVICE=info",
    "make lint typecheck",
    "make bench",
    "make up TRACES=1",
    "make observe",
    "make traces",
}


def commands() -> list[str]:
    """Every line of the README's shell blocks."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def cluster_commands() -> list[str]:
    """Every line of the README's shell blocks that need a cluster."""
    blocks = re.findall(
        r"^```sh cluster\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture
def slipway(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path / "home", ("-m", "scripts.local"))
    yield platform
    platform.end()


@pytest.mark.system
@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_run(slipway: Platform, tmp_path: Path) -> None:
    """Typed line by line into one shell, from `make up` to `make down`, each succeeds."""
    lines = commands()
    assert lines[0] == "make up"
    assert lines[-1] == "make traces"
    assert set(lines) >= NOT_HERE
    assert [line for line in order_lines(DEFAULT_URL) if line not in lines] == []
    up = slipway.up()
    slipway.wait_ready(up)
    url = slipway.process("gateway")["url"]
    asked = [line for line in lines[1:] if line not in NOT_HERE]
    script = "\n".join(
        f"{line.replace(DEFAULT_URL, url)} || exit 1; echo '#done'" for line in asked
    )
    ran = subprocess.run(
        [shutil.which("dash") or "sh"],
        input=f"printf 'paper-lamp-by-the-window\\n' > {tmp_path}/in\n{script}\n".replace(
            "make admin EMAIL=you@example.org",
            f"make admin EMAIL=you@example.org < {tmp_path}/in",
        ),
        cwd=ROOT,
        env=slipway.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    done = ran.stdout.count("#done")
    assert ran.returncode == 0, f"`{asked[done]}` failed: {ran.stdout[-800:]}{ran.stderr[-800:]}"
    assert done == len(asked)
    assert '"status":"confirmed"' in ran.stdout.replace(" ", "")
    assert up.wait(timeout=60) in {0, -signal.SIGTERM, 143}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the tree."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_pages_name_exist(page: Path) -> None:
    """`make x` in a page is a target of the Makefile."""
    text = page.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert named <= targets


def test_the_commands_for_a_cluster_are_complete() -> None:
    """They need a cluster, so `make e2e` runs them; here only that make understands each."""
    lines = cluster_commands()
    makes = [line.split() for line in lines if line.startswith("make ")]
    assert {"make deploy", "make smoke", "make doctor"} <= set(lines)
    for words in makes:
        dry = subprocess.run(
            [*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert dry.returncode == 0, dry.stderr


def test_every_service_has_its_runbook() -> None:
    """The page that `service.yaml` names exists and names the owner that stands there."""
    found = sorted(ROOT.glob("services/*/service.yaml"))
    assert len(found) >= 6
    for path in found:
        slo = yaml.safe_load(path.read_text())["slo"]
        page = (ROOT / slo["runbook"]).read_text()
        assert f"**Owner** {slo['owner']}." in page


def test_metrics_of_the_runbooks_exist() -> None:
    """A metric that a runbook sends people to is made somewhere in the services.

    Those of Envoy, Kubernetes and PostgreSQL are looked up in tests/observability.
    """
    text = "\n".join(page.read_text() for page in ROOT.glob("docs/runbooks/*.md"))
    named = set(re.findall(r"`((?!envoy_|kube_|pg_)[a-z]+(?:_[a-z]+)+)(?:\{[^}]*\})?`", text))
    source = "\n".join(path.read_text() for path in ROOT.glob("services/*/*/**/*.py"))
    missing = {
        name
        for name in named
        if f'"{name}"' not in source and f'"{name.removesuffix("_total")}"' not in source
    }
    assert named
    assert missing == set()


def test_the_example_of_the_chassis_page_serves(tmp_path: Path) -> None:
    """The service that docs/chassis.md shows starts and answers, as it is written there."""
    page = (ROOT / "docs/chassis.md").read_text()
    files = dict(
        re.findall(r"```(?:python|toml|yaml)\n# (services/greeter/\S+)\n(.*?)```", page, re.DOTALL)
    )
    assert len(files) == 4
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    schema = json.loads((ROOT / SCHEMA).read_text())
    service = read(tmp_path / "services/greeter/service.yaml", schema, tmp_path)
    assert (service.name, service.package) == ("greeter", "greeter")
    project = tomllib.loads((tmp_path / "services/greeter/pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["greeter"]
    [port] = pick_free(1)
    process = subprocess.Popen(
        [str(ROOT / ".venv" / "bin" / "python"), "-m", "chassis", "serve", "greeter"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "services/greeter", "GREETER_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:

            def answer() -> str | None:
                assert process.poll() is None, process.stderr and process.stderr.read()
                with contextlib.suppress(httpx2.TransportError):
                    url = f"http://127.0.0.1:{port}/v1/greetings/Ada"
                    return httpx2.get(url, trust_env=False, timeout=60).text
                return None

            assert eventually(answer, 60) == '{"greeting":"Hello, Ada."}'
        finally:
            process.terminate()
