"""Create, read, replace, change, complete, delete and restore a task."""

import asyncio
import uuid

import pytest

NOBODYS = "0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40"
CHANGES = [
    ("PUT", "", {"title": "Stolen"}),
    ("PATCH", "", {"title": "Stolen"}),
    ("DELETE", "", None),
    ("POST", "/complete", None),
    ("POST", "/restore", None),
]


async def test_a_created_task_is_where_its_location_says(client, world):
    body = {"title": "Pay the rent", "priority": "high", "due_at": "2030-05-04T12:00:00.5+02:00"}
    created = await client.post("/v1/tasks", json=body)
    assert created.status_code == 201
    task = created.json()
    assert uuid.UUID(task["id"]).version == 7
    assert created.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert task == {
        "id": task["id"],
        "title": "Pay the rent",
        "description": "",
        "status": "open",
        "priority": "high",
        "due_at": "2030-05-04T10:00:00.500000Z",
        "version": 1,
        "created_at": world.at(0),
        "updated_at": world.at(0),
        "completed_at": None,
        "deleted_at": None,
    }
    read = await client.get(created.headers["Location"])
    assert (read.status_code, read.json()) == (200, task)
    assert read.headers["ETag"] == created.headers["ETag"] == '"1"'
    assert read.headers["Cache-Control"] == "private, no-cache"
    known = {"If-None-Match": read.headers["ETag"]}
    same = await client.get(created.headers["Location"], headers=known)
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", '"1"')


async def test_put_replaces_all_and_patch_what_it_names(client, world, make, based_on):
    task = await make(description="Old", priority="urgent", due_at=world.at(48))
    world.clock.advance(60)
    path = f"/v1/tasks/{task['id']}"
    replaced = await client.put(path, json={"title": "New"}, headers=based_on(task))
    assert replaced.status_code == 200
    assert replaced.json() == {
        **task,
        "title": "New",
        "description": "",
        "priority": "normal",
        "due_at": None,
        "version": 2,
        "updated_at": world.at(0),
    }
    change = {"priority": "low", "due_at": world.at(1), "description": None}
    patched = await client.patch(path, json=change, headers=based_on(replaced.json()))
    assert patched.status_code == 200
    assert patched.json() == {
        **replaced.json(),
        "priority": "low",
        "due_at": world.at(1),
        "version": 3,
    }
    assert patched.headers["ETag"] == '"3"'
    assert (await client.get(path)).json() == patched.json()


async def test_the_same_content_changes_nothing(client, world, make, based_on):
    """The same moment in another offset is the same; the ETag stays, so a repeat succeeds."""
    task = await make(due_at="2030-05-04T12:00:00+02:00")
    world.clock.advance(60)
    path = f"/v1/tasks/{task['id']}"
    for answer in (
        await client.put(
            path,
            json={"title": "Pay the rent", "due_at": "2030-05-04T10:00:00Z"},
            headers=based_on(task),
        ),
        await client.patch(path, json={}, headers=based_on(task)),
        await client.post(f"{path}/restore", headers=based_on(task)),
    ):
        assert (answer.status_code, answer.json(), answer.headers["ETag"]) == (200, task, '"1"')


async def test_completing_keeps_its_time_until_it_is_opened_again(client, world, make, based_on):
    task = await make()
    path = f"/v1/tasks/{task['id']}"
    world.clock.advance(60)
    done = (await client.post(f"{path}/complete", headers=based_on(task))).json()
    assert (done["status"], done["completed_at"], done["version"]) == ("done", world.at(0), 2)
    completed_at = done["completed_at"]
    world.clock.advance(60)
    again = await client.post(f"{path}/complete", headers=based_on(done))
    assert (again.status_code, again.json()) == (200, done)
    renamed = (await client.patch(path, json={"title": "New"}, headers=based_on(done))).json()
    assert renamed["completed_at"] == completed_at
    opened = await client.patch(path, json={"status": "open"}, headers=based_on(renamed))
    assert (opened.json()["status"], opened.json()["completed_at"]) == ("open", None)
    finished = await make(status="done")
    assert finished["completed_at"] == world.at(0)


async def test_a_deleted_task_is_in_the_bin_and_comes_back(client, world, make, based_on, problem):
    task = await make(due_at=world.at(72))
    path = f"/v1/tasks/{task['id']}"
    gone = await client.delete(path, headers=based_on(task))
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.get("/v1/tasks")).json()["items"] == []
    [binned] = (await client.get("/v1/tasks", params={"deleted": "true"})).json()["items"]
    assert binned == {**task, "version": 2, "deleted_at": world.at(0)}
    read = await client.get(path)
    assert (read.json(), read.headers["ETag"]) == (binned, '"2"')
    assert (await client.delete(path, headers=based_on(binned))).status_code == 204
    for method, tail, body in CHANGES[:2] + CHANGES[3:4]:
        answer = await client.request(method, path + tail, json=body, headers=based_on(binned))
        problem(answer, 409, "task-deleted")
    back = await client.post(f"{path}/restore", headers=based_on(binned))
    assert (back.status_code, back.json()) == (200, {**task, "version": 3})
    assert (await client.get("/v1/tasks", params={"deleted": "true"})).json()["items"] == []


@pytest.mark.parametrize(("method", "tail", "body"), CHANGES)
async def test_a_change_needs_the_state_that_it_is_based_on(
    *, client, make, based_on, problem, method, tail, body
):
    task = await make()
    path = f"/v1/tasks/{task['id']}{tail}"
    problem(await client.request(method, path, json=body), 428, "precondition-required")
    for stale in ('"0"', 'W/"1"', '"2", "3"', "nonsense"):
        answer = await client.request(method, path, json=body, headers={"If-Match": stale})
        problem(answer, 412, "precondition-failed")
        assert answer.headers["ETag"] == '"1"'
    assert (await client.get(f"/v1/tasks/{task['id']}")).json() == task
    anyhow = await client.request(method, path, json=body, headers={"If-Match": '"7", "1"'})
    assert anyhow.status_code in {200, 204}


@pytest.mark.parametrize(("method", "tail", "body"), [("GET", "", None), *CHANGES])
@pytest.mark.parametrize(
    "condition",
    [{}, {"If-Match": "*"}, {"If-Match": '"1"'}, {"If-Match": '"0"'}, {"If-None-Match": '"1"'}],
    ids=str,
)
async def test_a_task_of_somebody_else_is_like_none(
    *, client, world, make, problem, method, tail, body, condition
):
    """Whatever the precondition: the same 404, byte for byte but for the ids of the requests."""
    task = await make()
    answers = []
    for task_id in (task["id"], NOBODYS):
        answer = await client.request(
            method,
            f"/v1/tasks/{task_id}{tail}",
            json=body,
            headers={**world.user("bob"), **condition, "X-Request-ID": "same"},
        )
        told = problem(answer, 404)
        assert "ETag" not in answer.headers
        told["instance"] = told["instance"].replace(task_id, "id")
        del told["trace_id"]
        answers.append((told, sorted(answer.headers)))
    assert answers[0] == answers[1]
    assert (await client.get(f"/v1/tasks/{task['id']}")).json() == task
    assert (await client.get("/v1/tasks", headers=world.user("bob"))).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("POST", "/complete"),
        ("GET", f"/{NOBODYS}"),
        *((method, f"/{NOBODYS}{tail}") for method, tail, _ in CHANGES),
    ],
)
async def test_every_route_needs_its_scope(*, client, world, problem, method, path):
    url = f"/v1/tasks{path}"
    anonymous = await client.request(method, url, json={}, headers={"Authorization": ""})
    problem(anonymous, 401)
    needed = "tasks:read" if method == "GET" else "tasks:write"
    other = "tasks:write" if method == "GET" else "tasks:read"
    refused = await client.request(method, url, json={}, headers=world.user("ada", other))
    assert needed in str(problem(refused, 403, "insufficient-scope"))


async def test_two_writers_with_one_etag_one_wins(client, make, based_on):
    """No lost update: of 20 concurrent changes based on the same state exactly one is made."""
    task = await make()
    path = f"/v1/tasks/{task['id']}"

    async def change(number):
        if number % 3 == 0:
            return await client.post(f"{path}/complete", headers=based_on(task))
        body = {"title": f"n{number}"}
        method = ("PUT", "PATCH")[number % 2]
        return await client.request(method, path, json=body, headers=based_on(task))

    answers = await asyncio.gather(*(change(number) for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19
    [won] = [answer for answer in answers if answer.status_code == 200]
    assert (await client.get(path)).json() == won.json()
    assert won.json()["version"] == 2


async def test_writers_who_care_for_no_state_all_write(client, make):
    """`*` holds as long as there is a task, whoever else is just changing it."""
    task = await make()
    path = f"/v1/tasks/{task['id']}"
    answers = await asyncio.gather(
        *(
            client.put(path, json={"title": f"n{number}"}, headers={"If-Match": "*"})
            for number in range(20)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 22))


async def test_one_idempotency_key_creates_one_task(client, world, problem):
    """Requests at once with the same key: one task, and everybody gets the same answer."""
    headers = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    body = {"title": "Pay the rent"}
    answers = await asyncio.gather(
        *(client.post("/v1/tasks", json=body, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    done = [answer for answer in answers if answer.status_code == 201]
    assert len({(answer.content, answer.headers["ETag"]) for answer in done}) == 1
    assert len((await client.get("/v1/tasks")).json()["items"]) == 1
    again = await client.post("/v1/tasks", json=body, headers=headers)
    assert (again.status_code, again.content) == (201, done[0].content)
    other = await client.post("/v1/tasks", json={"title": "Other"}, headers=headers)
    problem(other, 422, "idempotency-key-reused")
    # A key is its owner's: Bob's with the same name is another.
    his = await client.post("/v1/tasks", json=body, headers={**headers, **world.user("bob")})
    assert his.status_code == 201
    assert his.json()["id"] != again.json()["id"]


@pytest.mark.parametrize(
    "due_at",
    [
        "2026-05-04T12:00:00",
        "2026-05-04",
        "2026-05-04 12:00:00Z",
        "2026-05-04T12:00Z",
        "2026-02-30T12:00:00Z",
        "2026-05-04T25:00:00Z",
        "2026-05-04T12:00:00+2500",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "tomorrow",
        1777888800,
        1777888800.5,
        "1777888800",
        True,
        ["2026-05-04T12:00:00Z"],
    ],
)
async def test_a_due_time_needs_its_offset(client, make, based_on, problem, due_at):
    """RFC 3339 and nothing else: a time of nowhere would be another one for each reader."""
    task = await make()
    path = f"/v1/tasks/{task['id']}"
    for method, url in (("POST", "/v1/tasks"), ("PUT", path), ("PATCH", path)):
        body = {"title": "x", "due_at": due_at}
        answer = await client.request(method, url, json=body, headers=based_on(task))
        [error] = problem(answer, 422, "validation")["errors"]
        assert error["loc"] == ["body", "due_at"]


@pytest.mark.parametrize(
    "field",
    [
        {"title": ""},
        {"title": " padded"},
        {"title": "two\nlines"},
        {"title": "x" * 201},
        {"title": None},
        {"description": "nul \x00 nul"},
        {"description": "x" * 4001},
        {"priority": "medium"},
        {"priority": 1},
        {"status": "deleted"},
        {"colour": "red"},
        {"id": NOBODYS},
        {"owner": "bob"},
        {"completed_at": "2026-05-04T12:00:00Z"},
    ],
)
async def test_bad_fields_are_refused(client, make, based_on, problem, field):
    task = await make()
    path = f"/v1/tasks/{task['id']}"
    for method, url in (("POST", "/v1/tasks"), ("PUT", path), ("PATCH", path)):
        body = {"title": "x", **field}
        answer = await client.request(method, url, json=body, headers=based_on(task))
        errors = problem(answer, 422, "validation")["errors"]
        assert errors[0]["loc"][0] == "body"


async def test_text_is_kept_as_it_was_sent(client, make):
    """Quotes, SQL, other scripts and emoji are data."""
    text = 'Robert\'); DROP TABLE tasks;-- \u4e16\u754c \U0001f6cb "quoted" 100%_\\'
    task = await make(text, description=f"{text}\n\t{text}")
    assert (await client.get(f"/v1/tasks/{task['id']}")).json() == task
    assert (task["title"], task["description"]) == (text, f"{text}\n\t{text}")


@pytest.mark.parametrize("task_id", ["1", "complete", NOBODYS.upper(), f"{NOBODYS}x", "d%00k"])
async def test_a_malformed_id_is_422(client, task_id, problem):
    problem(await client.get(f"/v1/tasks/{task_id}"), 422, "validation")
