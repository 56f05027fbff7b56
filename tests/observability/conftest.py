"""One running platform with all its traces in the trace view, and a Prometheus that watches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.observability.watched import Watched
from tests.system.harness import Shop


@pytest.fixture(scope="session")
def running_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The platform with TRACES=1, started once per worker, on SQLite."""
    home = tmp_path_factory.mktemp("observability") / "home"
    shop = Shop.open(home, SLIPWAY_TRACES="1")
    try:
        yield shop
    finally:
        shop.close()


@pytest.fixture
def shop(running_shop: Shop) -> Iterator[Shop]:
    """The platform with every process ready, before and after the test."""
    running_shop.recover()
    yield running_shop
    running_shop.recover()


@pytest.fixture(scope="session")
def running_watched(running_shop: Shop) -> Iterator[Watched]:
    """Prometheus, started once per worker."""
    watched = Watched.open(running_shop)
    try:
        yield watched
    finally:
        watched.close()


@pytest.fixture
def watched(shop: Shop, running_watched: Watched) -> Watched:
    """A healthy platform that is watched."""
    return running_watched
