"""The disk of a service is full: the kernel refuses every write of its process (RLIMIT_FSIZE)."""

from __future__ import annotations

import resource
import sys

import pytest

from tests.local.platform_handle import eventually
from tests.system.harness import Shop, problem

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="limits another process by prlimit(2)"),
]


def test_a_full_disk_is_a_503_and_costs_no_data(shop: Shop) -> None:
    """Writes answer 503 as a problem, reads go on, the process lives; with room all is well."""
    item, [buyer] = shop.item(20), shop.buyers(1)
    kept = shop.order(buyer, item)
    assert kept.status_code == 201
    pid = shop.pid("orders")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # No file may be written beyond its first page: the database, its log and the service's own log.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for number in range(3):
            refused = shop.order(buyer, item, key=f"full-{number}")
            body = problem(refused, 503)
            assert body["type"] == "urn:slipway:problem:database-unavailable"
            assert refused.headers["Retry-After"]
        read = shop.call("GET", kept.headers["Location"], who=buyer)
        assert read.json()["status"] == "confirmed"
        assert shop.call("GET", "/livez", at="orders").status_code == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    placed = eventually(
        lambda: a if (a := shop.order(buyer, item, key="full-0")).status_code == 201 else None, 30
    )
    assert placed.json()["status"] == "confirmed"
    assert shop.pid("orders") == pid
    assert shop.rows("orders", "PRAGMA integrity_check") == [("ok",)]
    assert shop.assert_adds_up([buyer], {item: 20}) == {"confirmed": 2}
