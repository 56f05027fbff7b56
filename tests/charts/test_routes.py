"""Routes and services agree: what a service offers is let in, or kept inside on purpose."""

from __future__ import annotations

import importlib
import re

import pytest

from scripts import topology
from scripts.topology import Route, Service

# Between services only; everything else that a service documents is for clients.
INSIDE = re.compile(r"/events|/internal/.*|/v1/reservations(/.*)?")


def _matches(route: Route, path: str) -> bool:
    """Tell whether a route lets a path in, as the gateway's regular expression does."""
    # Without a version, /events is the event sink.
    optional = "" if route.path == "/events" else "?"
    version = rf"(/v[1-9]\d*){optional}" if route.versioned else ""
    below = "" if route.exact else "(/.*)?"
    return bool(re.fullmatch(f"{version}{re.escape(route.path.rstrip('/'))}{below}", path))


@pytest.mark.parametrize("service", tuple(topology.load()), ids=lambda service: service.name)
def test_every_documented_path_is_routed_or_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    """No endpoint is forgotten, none slips out, and no route leads nowhere."""
    monkeypatch.chdir(tmp_path)
    for name, value in service.env.items():
        monkeypatch.setenv(name, value)
    document = importlib.import_module(f"{service.module}.main").create_app().openapi()
    paths = document["paths"]
    assert paths
    for path, operations in paths.items():
        methods = {method.upper() for method in operations}
        routed = any(
            _matches(route, path) and methods <= set(route.methods or methods)
            for route in service.routes
        )
        assert routed != bool(INSIDE.fullmatch(path)), path
    for route in service.routes:
        assert any(_matches(route, path) for path in paths), route.path
