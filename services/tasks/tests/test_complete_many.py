"""Completing many tasks at once: one transaction, an outcome for each, repeatable."""

import asyncio

import pytest

NOBODYS = "0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40"


@pytest.fixture
def complete(client):
    """A function that completes tasks and returns what became of each, in order."""

    async def send(*ids, **more):
        answer = await client.post("/v1/tasks/complete", json={"ids": list(ids)}, **more)
        assert answer.status_code == 200, answer.text
        return [(each["id"], each["outcome"]) for each in answer.json()["results"]]

    return send


async def test_each_task_has_its_outcome(client, world, make, based_on, complete):
    """Those of others and those in the bin are not found; an id given twice is answered once."""
    todo, done, binned = [await make() for _ in range(3)]
    his = await client.post("/v1/tasks", json={"title": "x"}, headers=world.user("bob"))
    await client.post(f"/v1/tasks/{done['id']}/complete", headers=based_on(done))
    await client.delete(f"/v1/tasks/{binned['id']}", headers=based_on(binned))
    world.clock.advance(60)
    ids = [done["id"], NOBODYS, todo["id"], binned["id"], his.json()["id"], todo["id"]]
    assert await complete(*ids) == [
        (done["id"], "already"),
        (NOBODYS, "not_found"),
        (todo["id"], "completed"),
        (binned["id"], "not_found"),
        (his.json()["id"], "not_found"),
    ]
    read = (await client.get(f"/v1/tasks/{todo['id']}")).json()
    assert read == {
        **todo,
        "status": "done",
        "version": 2,
        "updated_at": world.at(0),
        "completed_at": world.at(0),
    }
    theirs = await client.get(f"/v1/tasks/{his.json()['id']}", headers=world.user("bob"))
    assert theirs.json() == his.json()
    untouched = (await client.get(f"/v1/tasks/{binned['id']}")).json()
    assert (untouched["status"], untouched["version"]) == ("open", 2)


async def test_again_changes_nothing(client, world, make, complete):
    tasks = [(await make())["id"] for _ in range(3)]
    assert {outcome for _, outcome in await complete(*tasks)} == {"completed"}
    before = (await client.get("/v1/tasks")).json()
    world.clock.advance(60)
    assert {outcome for _, outcome in await complete(*tasks)} == {"already"}
    assert (await client.get("/v1/tasks")).json() == before


async def test_concurrent_requests_complete_each_task_once(make, complete):
    """In opposite orders and overlapping: no deadlock, and every task is completed by one."""
    tasks = [(await make())["id"] for _ in range(20)]
    answers = await asyncio.gather(
        *(complete(*(tasks if number % 2 else tasks[::-1])) for number in range(8))
    )
    completed = [task for answer in answers for task, outcome in answer if outcome == "completed"]
    assert sorted(completed) == sorted(tasks)


async def test_an_edit_beside_it_is_not_lost(client, make, based_on, complete):
    """Either the edit is made first and then completed, or it is refused as stale."""
    for _ in range(5):
        task = await make()
        path = f"/v1/tasks/{task['id']}"
        edited, _ = await asyncio.gather(
            client.patch(path, json={"title": "New"}, headers=based_on(task)),
            complete(task["id"]),
        )
        now = (await client.get(path)).json()
        assert now["status"] == "done"
        assert (edited.status_code, now["title"]) in {(200, "New"), (412, "Pay the rent")}


@pytest.mark.parametrize(
    "ids", [[], ["x"], [NOBODYS] * 101, None, "x", [1]], ids=["none", "x", "101", "null", "", "1"]
)
async def test_bad_lists_are_refused(client, problem, ids):
    answer = await client.post("/v1/tasks/complete", json={"ids": ids})
    problem(answer, 422, "validation")
