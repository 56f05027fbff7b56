"""Fixtures of the gateway's tests: one issuer, one set of upstreams, one Envoy per module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scripts import topology
from tests.gateway.harness import Gateway, Issuer, Upstreams, run_gateway, wait_until

# Limits have tests of their own; elsewhere they would only be in the way.
UNLIMITED = {"rateLimits": {"enabled": False}}


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def _upstreams(issuer: Issuer) -> Iterator[Upstreams]:
    upstreams = Upstreams(issuer, tuple(topology.load().services))
    upstreams.start()
    yield upstreams
    upstreams.stop()


@pytest.fixture
def upstreams(_upstreams: Upstreams) -> Upstreams:
    """The services behind the gateway, with nothing seen yet."""
    _upstreams.seen.clear()
    _upstreams.exchanges.clear()
    _upstreams.keys.clear()
    return _upstreams


def has_keys(gateway: Gateway, issuer: Issuer) -> bool:
    """Tell whether the gateway has fetched the signing keys."""
    headers = {"Authorization": f"Bearer {issuer.token()}"}
    return gateway.get("/v1/orders", headers).status == 200


@pytest.fixture(scope="module")
def gateway(
    _upstreams: Upstreams, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with the tree's own values and no rate limits."""
    directory = tmp_path_factory.mktemp("gateway")
    with run_gateway(directory, _upstreams.addresses, UNLIMITED) as running:
        wait_until(lambda: has_keys(running, issuer), "the signing keys")
        yield running


@pytest.fixture
def start_gateway(
    _upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Gateway]]:
    """A function that starts a gateway with values of its own."""
    with ExitStack() as stack:

        def start(
            values: Mapping[str, Any] | None = None,
            addresses: Mapping[str, str] | None = None,
            services: topology.Topology | None = None,
        ) -> Gateway:
            directory: Path = tmp_path_factory.mktemp("gateway")
            everything = {**_upstreams.addresses, **(addresses or {})}
            return stack.enter_context(run_gateway(directory, everything, values, services))

        yield start


@pytest.fixture
def bearer(issuer: Issuer) -> dict[str, str]:
    """The header of a user with a good token."""
    return {"Authorization": f"Bearer {issuer.token()}"}
