"""One running platform for the fault tests of a worker; each test finds it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.harness import Shop


@pytest.fixture(scope="session")
def running_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The platform, started once per worker, on SQLite."""
    home = tmp_path_factory.mktemp("system") / "home"
    shop = Shop.open(home)
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
