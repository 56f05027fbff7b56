"""The OpenAPI document and the migrations against what really is there."""

from functools import partial

import anyio

from chassis.migrations import status
from chassis.testing.contract import fuzz_contract


async def test_the_document_tells_the_truth(world):
    """Generated requests, with the real peers behind: no 5xx, no answer that is not declared."""
    async with world.orders() as client:
        order = (await client.post("/v1/orders", json=world.lines(desk=1))).json()
    seen = await anyio.to_thread.run_sync(
        partial(
            fuzz_contract,
            world.app(),
            headers=world.user("u1"),
            known={"order_id": order["id"]},
            examples=15,
        )
    )
    assert {201, 422} <= seen["POST /v1/orders"]
    assert 200 in seen["GET /v1/orders"]
    assert {200, 404} <= seen["GET /v1/orders/{order_id}"]
    assert {200, 404} <= seen["POST /v1/orders/{order_id}/cancel"]
    assert len(seen) == 4


async def test_the_migrations_make_what_the_models_say(world):
    """No difference is left between the migrated database and the tables in the code."""
    found = await status("orders", world.settings())
    assert (found.pending, found.drift) == (False, ())
