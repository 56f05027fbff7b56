"""The end-to-end tests: the platform on the cluster of the current kubectl context.

`make e2e` runs them. Elsewhere, and where there is no cluster, they are skipped with one line. They
work in a namespace of their own, take it away at the end (SLIPWAY_E2E_KEEP=1 leaves it), and refuse
a context that looks like production. TAG and REGISTRY name the images; OBSERVE=1 lets those of the
observability release be pulled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scripts.kube.cluster import Cluster, connect, looks_like_production, reachable
from scripts.kube.errors import ToolError
from tests.e2e.harness import Platform, wait_for

ASKED = "SLIPWAY_E2E" in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What is installed is looked at before it is broken; other values of the releases come last.
    turns = {"test_install": 1, "test_observability": 3, "test_readme": 4}
    items.sort(key=lambda item: turns.get(item.path.stem, 2) if "e2e" in item.path.parts else 0)
    for item in items:
        if "tests/e2e" in item.nodeid:
            item.add_marker(pytest.mark.timeout(1800))
            if not ASKED:
                item.add_marker(pytest.mark.skip(reason="needs a cluster: `make e2e`"))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    try:
        found = connect()
        reachable(found)
    except ToolError as error:
        pytest.exit(f"e2e: {error}", returncode=2)
    if looks_like_production(found.context):
        pytest.exit(f"e2e: context {found.context} looks like production; refused", returncode=2)
    return found


@pytest.fixture(scope="session")
def platform(cluster: Cluster) -> Iterator[Platform]:
    """The platform, installed from nothing; `SLIPWAY_E2E_NAMESPACE` takes one that is there."""
    given = os.environ.get("SLIPWAY_E2E_NAMESPACE")
    found = Platform.plan(cluster, given or f"slipway-e2e-{os.urandom(3).hex()}")
    if not given:
        found.deployer.deploy(found.wanted)
    try:
        wait_for(lambda: found.replicas("gateway")[1] > 0, "the gateway is ready")
        found.stock(1_000_000)
        yield found
    finally:
        if not given and "SLIPWAY_E2E_KEEP" not in os.environ:
            found.remove()


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every deployment whole before a test and after it."""
    platform: Platform = request.getfixturevalue("platform")
    for name in platform.deployments:
        platform.settled(name)
    yield
    for name in platform.deployments:
        platform.settled(name)
