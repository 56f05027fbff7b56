"""The OpenAPI document, the settings and the migrations against what really is there."""

import anyio
import pytest

from chassis.migrations import status
from chassis.settings import SettingsError, load_settings
from chassis.testing.contract import fuzz_contract
from tasks.main import create_app
from tasks.settings import Settings


async def test_the_document_tells_the_truth(world):
    """Generated requests: no 5xx, and no answer that the OpenAPI document does not declare."""
    async with world.client() as client:
        task = (await client.post("/v1/tasks", json={"title": "Pay the rent"})).json()
    headers = {**world.user("ada"), "If-Match": "*"}

    def fuzz():
        app = create_app(world.settings)
        return fuzz_contract(app, headers=headers, known={"task_id": task["id"]}, examples=15)

    seen = await anyio.to_thread.run_sync(fuzz)
    assert len(seen) == 9
    # The requests went deep enough to mean something.
    assert 200 in seen["GET /v1/tasks"]
    assert {201, 422} <= seen["POST /v1/tasks"]
    assert 200 in seen["POST /v1/tasks/complete"]
    assert {200, 404} <= seen["GET /v1/tasks/{task_id}"]
    assert seen["PUT /v1/tasks/{task_id}"] & {200, 409}


async def test_the_document_is_complete(client):
    """Every operation has a summary, a description, a tag and an example of each body."""
    document = (await client.get("/openapi.json")).json()
    operations = [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 9
    for where, operation in operations:
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"] == ["tasks"], where
        assert {"401", "403"} <= operation["responses"].keys(), where
        for media in operation.get("requestBody", {}).get("content", {}).values():
            name = media["schema"]["$ref"].rsplit("/", 1)[-1]
            assert "example" in document["components"]["schemas"][name], where


async def test_the_examples_of_the_document_are_accepted(client):
    """What a newcomer copies from the docs works."""
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    created = await client.post("/v1/tasks", json=schemas["TaskIn"]["example"])
    assert created.status_code == 201, created.text
    assert set(schemas["TaskOut"]["example"]) <= set(created.json())
    patched = await client.patch(
        created.headers["Location"],
        json=schemas["TaskPatch"]["example"],
        headers={"If-Match": created.headers["ETag"]},
    )
    assert patched.status_code == 200, patched.text
    completed = await client.post("/v1/tasks/complete", json=schemas["CompleteIn"]["example"])
    assert set(completed.json()["results"][0]) == {"id", "outcome"}


async def test_the_migrations_make_what_the_models_say(world):
    found = await status("tasks", world.settings)
    assert (found.pending, found.drift) == (False, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("due_soon_hours", "0"),
        ("due_soon_poll_seconds", "-1"),
        ("due_soon_batch", "0"),
        ("bin_days", "0"),
    ],
)
def test_a_bad_setting_stops_the_start(monkeypatch, name, value):
    """One line that names it."""
    monkeypatch.setenv(f"TASKS_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"TASKS_{name.upper()}") as raised:
        load_settings(Settings)
    assert "\n" not in str(raised.value)


async def test_metrics_name_the_route_and_not_the_task(client, make):
    task = await make("Very private")
    await client.get(f"/v1/tasks/{task['id']}")
    metrics = (await client.get("/metrics")).text
    assert 'route="/v1/tasks/{task_id}"' in metrics
    for secret in (task["id"], "private", "ada"):
        assert secret not in metrics
