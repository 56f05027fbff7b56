"""The README's commands for a cluster, typed in a namespace of the tests."""

from __future__ import annotations

import os
import subprocess

from scripts.topology import ROOT
from tests.e2e.harness import Platform
from tests.local.test_readme import cluster_commands

# What makes a cluster or fills it with images has been done when there is one to test on.
BEFORE = ("make cluster", "make images ", "minikube ")


def test_the_commands_of_the_readme_run(platform: Platform) -> None:
    lines = [
        line
        for line in dict.fromkeys(cluster_commands())
        if line == "make cluster-status" or not line.startswith(BEFORE)
    ]
    assert "make deploy" in lines
    for line in lines:
        done = subprocess.run(
            line.replace("-n slipway", f"-n {platform.namespace}"),
            shell=True,
            cwd=ROOT,
            env={**os.environ, "NAMESPACE": platform.namespace},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        told = done.stdout[-1500:] + done.stderr[-1500:]
        assert done.returncode == 0, f"`{line}`: {told}"
