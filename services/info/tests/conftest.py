"""Fixtures of the tests of info."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest

from info.main import create_app
from info.settings import Settings

OpenInfo = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def open_info(make_settings: Callable[..., Settings], app_client: Any) -> OpenInfo:
    """Return a context manager that opens info with other settings."""

    @asynccontextmanager
    async def opened(**overrides: Any) -> AsyncIterator[httpx2.AsyncClient]:
        # Much more time for auth than in production: a busy machine stalls for seconds.
        patient = {"peer_timeout_seconds": 30.0, "peer_connect_timeout_seconds": 30.0}
        settings = make_settings(
            Settings, access_log=False, peer_retries=0, **{**patient, **overrides}
        )
        async with app_client(create_app(settings), raise_app_exceptions=False) as client:
            yield client

    return opened


@pytest.fixture
def database_dialect() -> str:
    """The auth beside info needs one database only; its own tests use both."""
    return "sqlite"
