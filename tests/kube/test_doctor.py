"""The doctor asks for the rights that a deployment needs: those of what the charts render."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import topology
from scripts.kube.doctor import NEEDED_RIGHTS, OBSERVING_RIGHTS
from scripts.kube.releases import releases
from scripts.topology import ROOT
from tests.charts.kube import render, values_of

TREE = topology.load()
IRREGULAR = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}


def made(observed: bool) -> set[tuple[str, str]]:
    """Return the API group and resource of every object that is made for development."""
    found = set()
    for release in releases(TREE, "dev", observed=observed):
        chart = Path(release.chart).name
        values = values_of(*(str(path.relative_to(ROOT)) for path in release.values))
        for manifest in render(chart, values, name=release.name):
            hook = manifest["metadata"].get("annotations", {}).get("helm.sh/hook", "")
            if hook != "test":
                group = manifest["apiVersion"].rpartition("/")[0]
                kind = manifest["kind"]
                found.add((group, IRREGULAR.get(kind, f"{kind.lower()}s")))
    return found


@pytest.mark.parametrize("observed", [False, True])
def test_every_object_that_is_made_is_asked_for(observed: bool) -> None:
    """And with OBSERVE=1 no right is asked for that nothing needs."""
    needed = {(group, resource) for group, resource, verb in NEEDED_RIGHTS if verb == "create"}
    observing = {(group, resource) for group, resource, _ in OBSERVING_RIGHTS}
    assert made(observed) - needed - (observing if observed else set()) == set()
    if observed:
        assert observing - made(observed) == set()
