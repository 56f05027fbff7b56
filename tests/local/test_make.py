"""The Makefile, the installer and the lock file, as far as they can be tested without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.platform_handle import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_every_target_with_one_line() -> None:
    """Nothing is run, nothing is left out."""
    listed = {line.split()[0] for line in make().stdout.splitlines() if len(line.split()) > 2}
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = set(phony.group(1).replace("\\", " ").split()) - {"help", "FORCE"}
    assert listed == targets
    assert {"install", "up", "down", "clean", "logs", "demo", "test", "lint", "lock"} <= listed


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("up", "DETACH={}"), "--detach"),
        (("start", "TRACES={}"), "SLIPWAY_TRACES=1"),
        (("logs", "PRETTY={}"), "--pretty"),
        (("deploy", "OBSERVE={}"), "--observe"),
        (("undeploy", "DATA={}"), "--data"),
        (("cluster-status", "WATCH={}"), "--watch"),
    ],
)
def test_no_is_no(words: tuple[str, str], option: str) -> None:
    """`DATA=0` must not delete what `DATA=1` deletes."""
    target, switch = words
    assert option in make("-n", target, switch.format("1")).stdout
    for off in ("0", "no", "false", ""):
        assert option not in make("-n", target, switch.format(off)).stdout


def test_generate_knows_every_derived_file() -> None:
    """Each generator it runs finds its files current; no other module has files to write."""
    listed = re.search(r"^GENERATORS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    modules = listed.group(1).split()
    for module in modules:
        check = [sys.executable, "-m", module, "--check"]
        done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    writers = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("scripts", "observability")
        for path in (ROOT / folder).rglob("*.py")
        if "-m "
        + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        + " --write"
        in path.read_text()
    }
    assert writers == set(modules)


def test_the_lock_names_no_index_and_no_local_path() -> None:
    """It resolves the same behind any mirror: names, versions and hashes only."""
    for line in LOCK.splitlines():
        assert "://" not in line
        assert not line.lstrip().startswith(
            ("-i", "-f", "--index", "--extra-index", "--find-links")
        )
        assert str(ROOT) not in line


def test_the_lock_pins_everything_with_a_hash() -> None:
    """Every requirement is one exact version with at least one SHA-256."""
    requirements = re.split(r"\n(?=[a-z0-9])", LOCK, flags=re.IGNORECASE)[1:]
    assert len(requirements) > 50
    for requirement in requirements:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+]+", requirement), requirement[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement[:80]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory for a PATH with the POSIX tools that the installer uses, and no Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "awk", "cat"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return tools


def install(bare: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "scripts/install.sh", str(bare.parent / "venv")],
        cwd=ROOT,
        env={"PATH": str(bare), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_python_the_installer_says_what_to_install(bare: Path) -> None:
    """One line with the fix."""
    result = install(bare)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("install: no Python 3.11 or newer found; install one")


def test_without_ensurepip_the_installer_names_the_package(bare: Path, tmp_path: Path) -> None:
    """As on Debian without python3-venv. A python3 that does not start is passed over."""
    broken = bare / "python3"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    (bare / "python3.12").symlink_to(os.path.realpath(sys.executable))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for module in ("ensurepip", "pip"):
        (hidden / f"{module}.py").write_text("raise ImportError('not on this machine')\n")
    result = install(bare, PYTHONPATH=str(hidden))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install python{version}-venv" in result.stderr
    assert not (tmp_path / "venv").exists()
