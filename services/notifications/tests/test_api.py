"""Users read their own notifications and mark them read; services send others."""

import anyio

from chassis.migrations import status
from chassis.testing.contract import fuzz_contract
from notifications.main import create_app

BODY = {"recipient": "u1", "title": "Back in stock", "body": "The teapot is back."}


async def test_notify_reaches_its_recipient(world):
    """What a service sends is what the user reads."""
    async with world.client() as client:
        answer = await client.post("/v1/notify", json=BODY, headers=world.sender)
        sent = answer.json()
        assert answer.status_code == 201
        assert (sent["kind"], sent["title"], sent["read_at"]) == ("message", BODY["title"], None)
        assert await world.inbox(client) == [sent]
        assert (await client.get(f"/v1/notifications/{sent['id']}")).json() == sent


async def test_notify_with_a_key_sends_once(world):
    """Repeats and concurrent duplicates of one key make one notification; another body is 422."""
    async with world.client() as client:
        headers = {**world.sender, "Idempotency-Key": "once"}
        ids: set[str] = set()

        async def send() -> None:
            answer = await client.post("/v1/notify", json=BODY, headers=headers)
            assert answer.status_code == 201
            ids.add(answer.json()["id"])

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(send)
        assert len(ids) == 1
        assert len(await world.inbox(client)) == 1
        other = await client.post("/v1/notify", json={**BODY, "title": "x"}, headers=headers)
        assert other.status_code == 422


async def test_notify_needs_its_scope(world):
    """Users may not send notifications to each other."""
    async with world.client() as client:
        assert (await client.post("/v1/notify", json=BODY)).status_code == 403
        none = {"Authorization": ""}
        assert (await client.post("/v1/notify", json=BODY, headers=none)).status_code == 401


async def test_bad_notifications_are_refused(world):
    """Whatever breaks the schema is 422, text that PostgreSQL cannot store included."""
    bad = [
        {},
        {**BODY, "title": ""},
        {**BODY, "title": "a\u0000b"},
        {**BODY, "body": "x" * 4001},
        {**BODY, "kind": "Not a kind"},
        {**BODY, "recipient": ""},
        {**BODY, "surprise": 1},
    ]
    async with world.client() as client:
        for body in bad:
            answer = await client.post("/v1/notify", json=body, headers=world.sender)
            assert answer.status_code == 422, body


async def test_reading_is_marked_once(world):
    """The time of the first reading stays; the filter tells read from unread."""
    async with world.client() as client:
        for number in range(3):
            body = {**BODY, "title": f"number {number}"}
            await client.post("/v1/notify", json=body, headers=world.sender)
        first = (await world.inbox(client))[0]
        path = f"/v1/notifications/{first['id']}/read"
        marked = (await client.post(path)).json()
        assert marked["read_at"] is not None
        assert (await client.post(path)).json() == marked
        assert [n["id"] for n in await world.inbox(client, unread="false")] == [first["id"]]
        assert len(await world.inbox(client, unread="true")) == 2
        assert len(await world.inbox(client)) == 3


async def test_notifications_of_others_do_not_exist(world):
    """Reading, marking and listing show one's own only."""
    async with world.client() as client:
        sent = (await client.post("/v1/notify", json=BODY, headers=world.sender)).json()
        other = world.user("u2")
        path = f"/v1/notifications/{sent['id']}"
        assert (await client.get(path, headers=other)).status_code == 404
        assert (await client.post(f"{path}/read", headers=other)).status_code == 404
        assert (await client.get("/v1/notifications", headers=other)).json()["items"] == []
        assert (await client.get(path)).json()["read_at"] is None


async def test_the_list_pages(world):
    """Newest first, by cursor, each once."""
    async with world.client() as client:
        for number in range(5):
            body = {**BODY, "title": str(number)}
            await client.post("/v1/notify", json=body, headers=world.sender)
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            params = {"limit": "2", **cursor}
            page = (await client.get("/v1/notifications", params=params)).json()
            seen += [item["title"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == ["4", "3", "2", "1", "0"]
        assert (await client.get("/v1/notifications", params={"cursor": "x"})).status_code == 400


def test_the_document_tells_the_truth(world):
    """Generated requests: no 5xx, and no answer that the OpenAPI document does not declare."""
    headers = world.issuer.authorization(
        "u1", "notifications:read notifications:send events:deliver"
    )
    seen = fuzz_contract(create_app(world.settings), headers=headers, examples=20)
    assert 201 in seen["POST /v1/notify"]
    assert 204 in seen["POST /events"]
    assert 404 in seen["POST /v1/notifications/{notification_id}/read"]
    assert len(seen) == 5


async def test_the_migrations_make_what_the_models_say(world):
    """No difference is left between the migrated database and the tables in the code."""
    found = await status("notifications", world.settings)
    assert (found.pending, found.drift) == (False, ())


async def test_everything_is_documented(world):
    """Every operation has a summary and a tag, bodies have examples, the pages are there."""
    async with world.client() as client:
        document = (await client.get("/openapi.json")).json()
        for operations in document["paths"].values():
            for operation in operations.values():
                assert operation["summary"]
                assert operation["tags"]
        assert document["components"]["schemas"]["NotifyIn"]["examples"]
        for page in ("/docs", "/redoc"):
            assert (await client.get(page)).status_code == 200
