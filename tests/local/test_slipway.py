"""The tree's own platform, started for real: the way of a newcomer, from `up` to the order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from chassis.testing.postgres import PostgresServer
from scripts import topology
from tests.local.platform_handle import ROOT, Platform, alive, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def slipway(tmp_path: Path) -> Iterator[Platform]:
    """The real platform in a home of its own."""
    platform = Platform(tmp_path / "home", ("-m", "scripts.local"))
    yield platform
    platform.end()


def demo(platform: Platform) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=ROOT,
        env=platform.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def paste(lines: list[str]) -> str:
    """Run lines as pasted into a plain POSIX shell that knows no more than PATH."""
    shell = shutil.which("dash") or "sh"
    done = subprocess.run(
        [shell],
        input="\n".join(lines) + "\n",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_way_of_a_newcomer(slipway: Platform) -> None:
    """`up`; the three lines; the demo; a killed service; Ctrl-C. On SQLite, without a server."""
    up = slipway.up()
    slipway.wait_ready(up)
    pids = slipway.pids()
    assert {p["name"] for p in slipway.status()["processes"]} == {
        *topology.load().services,
        "gateway",
    }
    for process in slipway.status()["processes"]:
        if process["docs"]:
            assert httpx2.get(process["docs"], trust_env=False, timeout=60).status_code == 200

    # The lines are on the terminal for a person to copy; here they come from the same output.
    assert up.stdout is not None
    output: list[str] = []
    while not output or not output[-1].startswith("Ready after "):
        output.append(up.stdout.readline())
    start = next(i for i, line in enumerate(output) if line.startswith("EMAIL="))
    answers = paste([line.rstrip("\n") for line in output[start : start + 3]]).splitlines()
    assert json.loads(answers[0])["email"].startswith("me-")
    assert json.loads(answers[1])["status"] == "confirmed"

    told = demo(slipway)
    assert told.returncode == 0, told.stderr
    assert "is confirmed" in told.stdout
    assert "Notified" in told.stdout

    os.kill(slipway.process("orders")["pid"], signal.SIGKILL)
    eventually(
        lambda: (p := slipway.process("orders"))["state"] == "ready" and p["restarts"] == 1, 60
    )
    again = demo(slipway)
    assert again.returncode == 0, again.stderr

    pids += slipway.pids()
    os.killpg(up.pid, signal.SIGINT)
    rest, _ = up.communicate(timeout=60)
    assert up.returncode == 0, rest
    assert not any(map(alive, pids))
    assert "Traceback" not in rest
    assert demo(slipway).returncode == 1


def test_everything_on_a_postgresql_server(
    slipway: Platform, postgres_server: PostgresServer
) -> None:
    """DATABASE_URL_TEMPLATE: databases are created, one per service; a second start finds them."""
    mine = f"t{uuid.uuid4().hex[:12]}"
    slipway.env["DATABASE_URL_TEMPLATE"] = postgres_server.url(f"{mine}_{{service}}")
    names = [f"{mine}_{s.name.replace('-', '_')}" for s in topology.load() if s.migrates]
    try:
        for _ in range(2):
            started = slipway.run("up", "--detach", timeout=200)
            assert started.returncode == 0, started.stdout + started.stderr
            told = demo(slipway)
            assert told.returncode == 0, told.stderr
            slipway.run("down")
        assert list((slipway.home / "data").iterdir()) == []
        with psycopg.connect(postgres_server.admin_url, autocommit=True) as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
            assert set(names) <= {row[0] for row in rows}
    finally:
        for name in names:
            postgres_server.drop_database(postgres_server.url(name))


def test_a_bad_setting_of_a_service_is_one_line(slipway: Platform) -> None:
    """The line of the service itself, before anything is started; no restart hides it."""
    result = slipway.run("up", ITEMS_LOG_LEVEL="loud")
    assert result.returncode == 2
    assert result.stderr.startswith("slipway: ITEMS_LOG_LEVEL: ")
    assert len(result.stderr.splitlines()) == 1
    assert slipway.pids() == []


def test_an_absent_database_server_is_one_line_without_the_password(slipway: Platform) -> None:
    """The variable, the reason and the fix."""
    url = "postgresql://ada:h1dden@127.0.0.1:9/slipway_{service}"
    result = slipway.run("up", DATABASE_URL_TEMPLATE=url)
    assert result.returncode == 2
    assert result.stderr.startswith("slipway: AUTH_DATABASE_URL: ")
    assert "h1dden" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_commands_of_a_service_run_with_its_settings(slipway: Platform) -> None:
    """`run SERVICE ...`, `openapi` and `admin` need no running platform; a typo names them all."""
    assert slipway.run("migrate").returncode == 0
    assert (slipway.home / "data" / "orders.db").exists()
    listed = slipway.run("run", "auth", "clients")
    assert listed.returncode == 0, listed.stderr
    assert "orders" in listed.stdout
    document = slipway.run("openapi", "info")
    assert json.loads(document.stdout)["openapi"].startswith("3.")
    # Releases of one package differ by their variables.
    for release, methods in (("trainers-queries", {"get"}), ("trainers-commands", {"post", "put"})):
        document = slipway.run("openapi", release)
        paths = json.loads(document.stdout)["paths"].values()
        assert {method for path in paths for method in path} == methods
    assert (slipway.home / "data" / "trainers-commands.db").exists()
    assert not (slipway.home / "data" / "trainers-queries.db").exists()
    wrong = slipway.run("openapi", "order")
    assert wrong.returncode == 2
    assert all(name in wrong.stderr for name in topology.load().services)


def test_secrets_are_made_once_and_stay_private(slipway: Platform) -> None:
    """One file of mode 0600; the next run has the same secrets; none is in the tree's output."""
    first = slipway.run("run", "auth", "clients")
    secrets = slipway.home / "secrets" / "local.json"
    before = secrets.read_text()
    assert secrets.stat().st_mode & 0o777 == 0o600
    slipway.run("run", "auth", "clients")
    assert secrets.read_text() == before
    values = list(json.loads(before).values())
    assert len(values) == len(set(values))
    assert all(len(value) >= 32 for value in values)
    assert not any(value in first.stdout + first.stderr for value in values)
