"""Events of orders and tasks become notifications of their owner, once each."""

import anyio
import pytest


@pytest.mark.parametrize(
    ("kind", "title"),
    [("order.confirmed", "Order confirmed"), ("order.cancelled", "Order cancelled")],
)
async def test_an_order_event_tells_the_owner(world, kind, title):
    """The notification names the order and its total, for people and for programs."""
    async with world.client() as client:
        event = world.event(kind)
        assert (await world.deliver(client, event)).status_code == 204
        [told] = await world.inbox(client)
        assert (told["kind"], told["title"], told["read_at"]) == (kind, title, None)
        assert "25.00 EUR" in told["body"]
        assert told["data"] == {
            "order_id": event["data"]["order_id"],
            "total": {"amount": "25.00", "currency": "EUR"},
        }


SHORT = {
    "code": "insufficient-stock",
    "detail": "There is not enough stock.",
    "lines": [{"item_id": "desk", "requested": 2, "available": 1}],
}
UNKNOWN = {
    "code": "unknown-items",
    "detail": "The catalogue does not have all of the items.",
    "lines": [{"item_id": "unicorn", "quantity": 1}],
}
AWAY = {"code": "peer-unavailable", "detail": "It took too long.", "lines": []}


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (SHORT, "There is not enough stock (Desk: 1 of 2 left)."),
        (UNKNOWN, "The catalogue does not have all of the items (unicorn)."),
        (AWAY, "It took too long."),
        (None, "is rejected."),
    ],
    ids=["short", "unknown", "away", "no reason"],
)
async def test_a_rejection_says_why(world, reason, why):
    """The text names the lines as the buyer knows them; the data has the code for programs."""
    async with world.client() as client:
        event = world.event("order.rejected")
        data = {**event["data"], "status": "rejected", "reason": reason}
        assert (await world.deliver(client, {**event, "data": data})).status_code == 204
        [told] = await world.inbox(client)
        assert (told["kind"], told["title"]) == ("order.rejected", "Order rejected")
        assert told["body"].startswith(f"Your order {data['order_id']} of 25.00 EUR is rejected.")
        assert told["body"].endswith(why)
        assert told["data"].get("reason", {}).get("code") == (reason and reason["code"])


TASK = {
    "task_id": "0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40",
    "owner": "u1",
    "title": "Pay the rent",
    "priority": "high",
    "due_at": "2026-05-04T12:00:00+02:00",
}


async def test_a_task_that_falls_due_tells_its_owner(world):
    """The time is in UTC, for people and for programs; again it is the same notification."""
    async with world.client() as client:
        event = world.event("task.due-soon", subject=TASK["task_id"], data=TASK)
        for _ in range(2):
            assert (await world.deliver(client, event)).status_code == 204
        [told] = await world.inbox(client)
        assert (told["kind"], told["title"]) == ("task.due-soon", "Task due soon")
        assert told["body"] == (
            "Your task \u201cPay the rent\u201d is due on 2026-05-04 at 10:00 UTC."
        )
        assert told["data"] == {"task_id": TASK["task_id"], "due_at": "2026-05-04T10:00:00Z"}


@pytest.mark.parametrize("due_at", [None, "soon", "2026-05-04T12:00:00"])
async def test_a_task_without_a_time_is_refused(world, due_at):
    """422, so that the sender keeps it as a dead letter."""
    async with world.client() as client:
        event = world.event("task.due-soon", data={**TASK, "due_at": due_at})
        assert (await world.deliver(client, event)).status_code == 422
        assert await world.inbox(client) == []


async def test_an_event_that_comes_again_is_told_once(world):
    """Deliveries of one event, one after the other and at the same time, make one notification."""
    async with world.client() as client:
        event = world.event()
        statuses: list[int] = []

        async def deliver() -> None:
            statuses.append((await world.deliver(client, event)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(deliver)
        await deliver()
        assert statuses == [204] * 11
        assert len(await world.inbox(client)) == 1


async def test_two_processes_tell_an_event_once(world):
    """Two instances on one database share the inbox."""
    async with world.client() as one, world.client() as two:
        event = world.event()
        async with anyio.create_task_group() as tasks:
            for client in (one, two) * 3:
                tasks.start_soon(world.deliver, client, event)
        assert len(await world.inbox(one)) == 1


async def test_other_events_are_of_no_interest(world):
    """An event type that nobody asked for is accepted and makes nothing."""
    async with world.client() as client:
        assert (await world.deliver(client, world.event("order.shipped"))).status_code == 204
        assert await world.inbox(client) == []


@pytest.mark.parametrize("data", [None, {}, {"order_id": "o1"}, {"owner": 7, "order_id": "o1"}])
async def test_an_event_without_an_order_is_refused(world, data):
    """422, so that the sender keeps it as a dead letter; once it is right it is told."""
    async with world.client() as client:
        event = world.event()
        answer = await world.deliver(client, {**event, "data": data})
        assert answer.status_code == 422
        assert (await world.deliver(client, event)).status_code == 204
        assert len(await world.inbox(client)) == 1


async def test_events_need_the_scope_of_a_service(world):
    """A user cannot make up events."""
    async with world.client() as client:
        answer = await client.post("/events", json=world.event(), headers=world.user("u1"))
        assert answer.status_code == 403
        assert await world.inbox(client) == []
