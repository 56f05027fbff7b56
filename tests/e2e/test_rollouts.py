"""Nothing is dropped: constant load while everything is replaced, scaled and deleted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial

from tests.e2e.harness import LoadPod, Platform, show, wait_for

REQUESTS = int(os.environ.get("SLIPWAY_E2E_REQUESTS", "50000"))
FIGURES = ("requests", "seconds", "failed", "slowest", "seen", "accepted", "lost", "unasked",
           "twice", "told_twice", "untold", "states")  # fmt: skip


def restart(platform: Platform, name: str) -> None:
    platform.deployer.restart(name)


def upgrade(platform: Platform, name: str) -> None:
    """A new revision with another pod template: for the gateway, another Envoy configuration."""
    stamp = str(time.time_ns())
    if name == "gateway":
        platform.upgrade(name, f"tracing.serviceName=gateway-{stamp}")
    else:
        platform.upgrade(name, f"podAnnotations.rolled={stamp}")


def scale(platform: Platform, name: str) -> None:
    """One more, and back: what the autoscaler does, without waiting for it."""
    low = platform.replicas(name)[0]
    spec = json.loads(platform.kubectl("get", "hpa", name, "-o", "json"))["spec"]
    for number in (low + 1, low):
        limits(platform, name, number, number)
        wait_for(partial(has_pods, platform, name, number), f"{name} has {number} pods", 120)
    limits(platform, name, spec["minReplicas"], spec["maxReplicas"])


def limits(platform: Platform, name: str, low: int, high: int) -> None:
    patch = json.dumps({"spec": {"minReplicas": low, "maxReplicas": high}})
    platform.kubectl("patch", "hpa", name, "--type=merge", "-p", patch)


def has_pods(platform: Platform, name: str, number: int) -> bool:
    return platform.replicas(name) == (number, number) and len(platform.pods(name)) == number


def delete_a_pod(platform: Platform, name: str) -> None:
    old = platform.pods(name)[0].metadata.name
    platform.kubectl("delete", "pod", old, "--wait=true")
    platform.settled(name)


STEPS: tuple[Callable[[Platform, str], None], ...] = (restart, upgrade, scale, delete_a_pod)


def disturb(platform: Platform, load: LoadPod) -> None:
    """Do every step to every deployment; then go on until there were enough requests."""
    for name in platform.deployments:
        for step in STEPS:
            begun = time.monotonic()
            step(platform, name)
            print(f"  {step.__name__} {name}: {time.monotonic() - begun:.1f} s, "
                  f"{load.progress()}")  # fmt: skip
    wait_for(lambda: load.requests() >= REQUESTS, f"{REQUESTS} requests", 900, 2)


def test_nothing_is_dropped_while_everything_is_replaced(platform: Platform) -> None:
    """Reads, writes and new connections: every one answered, every order there, none twice."""
    rate = os.environ.get("SLIPWAY_E2E_RATE", "120")
    with platform.load(SECONDS=3000, RATE=rate, READERS=12, WRITERS=2, FRESH=3) as load:
        disturb(platform, load)
    result = load.result
    show("zero drop", result, FIGURES)
    assert result["requests"] >= REQUESTS
    assert result["failed"] == 0, result["failures"]
    assert result["accepted"] > 0
    assert result["lost"] == result["unasked"] == result["twice"] == 0
    assert result["told_twice"] == result["untold"] == 0
    assert set(result["states"]) == {"confirmed"}
