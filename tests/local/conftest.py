"""Fixtures for the tests of the local runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.platform_handle import Platform


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Platform]:
    """The runner with three tiny servers as its platform."""
    platform = Platform(tmp_path / "home", (str(Path(__file__).with_name("toy.py")),))
    platform.home.mkdir()
    yield platform
    platform.end()
