"""The autoscaler: load brings pods, they get their share of it at once, quiet takes them away."""

from __future__ import annotations

import time

from tests.e2e.harness import Platform, wait_for


def test_orders_scales_up_under_load_and_down_after_it(platform: Platform) -> None:
    low = platform.replicas("orders")[0]
    begun = time.monotonic()
    with platform.load(SECONDS=900, RATE=500, READERS=0, WRITERS=24, FRESH=0) as load:
        wait_for(lambda: platform.replicas("orders")[0] > low, "orders scales up", 240)
        wanted = time.monotonic() - begun
        wait_for(lambda: platform.replicas("orders")[1] > low, "the new pod is ready", 120)
        ready = time.monotonic() - begun
        newest = max(platform.pods("orders"), key=lambda pod: pod.metadata.creation_timestamp)
        name = newest.metadata.name
        wait_for(
            lambda: "POST" in platform.kubectl("logs", name, "--tail", "200", check=False),
            "the new pod gets orders",
            30,
        )
        share = time.monotonic() - begun
        top = platform.replicas("orders")[0]
    ended = time.monotonic()
    wait_for(lambda: platform.replicas("orders")[0] == low, "orders scales down", 420)
    down = time.monotonic() - ended
    result = load.result
    print(
        f"\nscaling: {low} -> more wanted after {wanted:.0f} s, ready {ready:.0f} s, "
        f"gets orders {share:.0f} s, at most {top}; back to {low} {down:.0f} s after the load; "
        f"{result['accepted']} orders, {result['failed']} failed"
    )
    assert result["lost"] == result["unasked"] == result["twice"] == 0
    assert set(result["states"]) <= {"confirmed"}
