"""A bad release: the old version serves on, the reason is told, and there is a way back."""

from __future__ import annotations

import base64
import json

import pytest

from scripts.kube.errors import ToolError
from tests.e2e.harness import Platform


def served(platform: Platform, name: str) -> set[str]:
    """The versions that serve; an autoscaler may change how many pods do."""
    return {pod.metadata.labels["pod-template-hash"] for pod in platform.pods(name)}


@pytest.mark.parametrize(
    ("name", "sets", "reason"),
    [
        # It starts and dies at once.
        ("items", ("command[0]=python", "command[1]=-c", "command[2]=raise SystemExit('broken')"),
         "CrashLoopBackOff"),
        # No such image anywhere.
        ("items", ("image.tag=never-built",), "never-built"),
    ],
)  # fmt: skip
def test_a_release_that_never_becomes_ready_is_taken_back(
    platform: Platform, name: str, sets: tuple[str, ...], reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = served(platform, name)
    with platform.load(SECONDS=600, RATE=20, READERS=2, WRITERS=1, FRESH=1) as load:
        with pytest.raises(ToolError) as caught:
            platform.upgrade(name, *sets)
        told = f"{caught.value} {capsys.readouterr().out}"
        assert reason in told
        assert "taken back to revision" in str(caught.value)
        platform.settled(name)
    assert load.result["failed"] == 0, load.result["failures"]
    assert served(platform, name) == before, "the old version serves on"
    assert platform.deployer.helm.state(name) == "deployed"


def test_a_failing_migration_changes_nothing(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hook runs before the pods are touched: the release fails, the old one serves."""
    before = served(platform, "items")
    secret = json.loads(platform.kubectl("get", "secret", "items-database", "-o", "json"))
    wrong = base64.b64encode(b"postgresql://items:wrong@postgresql/items").decode()
    platform.kubectl(
        "patch", "secret", "items-database", "-p", json.dumps({"data": {"url": wrong}})
    )
    try:
        with pytest.raises(ToolError) as caught:
            platform.upgrade("items", "migrations.backoffLimit=0", "podAnnotations.a=b")
    finally:
        platform.kubectl(
            "patch", "secret", "items-database",
            "-p", json.dumps({"data": {"url": secret["data"]["url"]}}),
        )  # fmt: skip
    told = f"{caught.value} {capsys.readouterr().out}"
    assert "serves on" in str(caught.value)
    assert "password authentication failed" in told or "items-migrate" in told
    assert "wrong@" not in told, "the password is in nobody's terminal"
    assert served(platform, "items") == before
    platform.upgrade("items")


def test_a_wrong_value_is_refused_before_anything_happens(platform: Platform) -> None:
    revision = platform.deployer.helm.revision("items")
    with pytest.raises(ToolError, match=r"autoscaling|minReplica"):
        platform.upgrade("items", "autoscaling.minReplica=3")
    assert platform.deployer.helm.revision("items") == revision


def test_rollback_brings_the_version_before_back(platform: Platform) -> None:
    platform.upgrade("info", "podAnnotations.version=one")
    platform.upgrade("info", "podAnnotations.version=two")
    assert {pod.metadata.annotations["version"] for pod in platform.pods("info")} == {"two"}
    platform.deployer.rollback("info", 0)
    assert {pod.metadata.annotations["version"] for pod in platform.pods("info")} == {"one"}
    assert platform.deployer.helm.state("info") == "deployed"
