"""The OpenAPI document, commands and migrations."""

import json
import os
import subprocess
import sys

import anyio

from chassis.migrations import status
from chassis.testing.contract import fuzz_contract
from items.__main__ import main
from items.main import create_app
from items.seed import catalogue


def test_the_service_keeps_to_its_openapi_document(settings, writer):
    """No 5xx and nothing undeclared, whatever is sent to either version."""
    app = create_app(settings)
    seen = fuzz_contract(app, headers={**writer, "If-Match": "*"}, known={"item_id": "desk"})
    assert len(seen) == 12
    # The requests went deep enough to mean something.
    assert 201 in seen["POST /v1/items"]
    assert {200, 422} <= seen["GET /v2/items"]


async def test_the_document_is_complete(client):
    """Every operation has a summary, a description, a tag and an example of each body."""
    document = (await client.get("/openapi.json")).json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 12
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"] == ["items"], where
        if method not in {"get", "head"}:
            assert operation["security"], where
            assert {"401", "403"} <= operation["responses"].keys(), where
        for media in operation.get("requestBody", {}).get("content", {}).values():
            name = media["schema"]["$ref"].rsplit("/", 1)[-1]
            assert "example" in document["components"]["schemas"][name], where
    assert (
        "application/merge-patch+json"
        in (document["paths"]["/v1/items/{item_id}"]["patch"]["requestBody"]["content"])
    )


async def test_the_examples_of_the_document_are_accepted(client, writer):
    """What a newcomer copies from the docs works."""
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for version in ("1", "2"):
        body = {**schemas[f"ItemCreateV{version}"]["example"], "id": f"desk-{version}"}
        body["sku"] += version
        created = await client.post(f"/v{version}/items", json=body, headers=writer)
        assert created.status_code == 201, created.text
        patch = schemas[f"ItemPatchV{version}"]["example"]
        headers = {**writer, "If-Match": created.headers["ETag"]}
        patched = await client.patch(created.headers["Location"], json=patch, headers=headers)
        assert patched.status_code == 200, patched.text
        assert set(schemas[f"ItemV{version}"]["example"]) == set(patched.json())


async def test_the_migrations_make_what_the_models_say(settings):
    found = await status("items", settings)
    assert (found.pending, found.drift) == (False, ())


async def test_the_seed_may_run_again_and_again(settings, app_client, monkeypatch, capsys):
    """It adds what is missing and touches nothing that is there."""
    monkeypatch.setenv("ITEMS_DATABASE_URL", settings.database_url)
    assert await anyio.to_thread.run_sync(main, ["seed"]) == 0
    assert capsys.readouterr().out == "items: 12 items added\n"
    async with app_client(create_app(settings)) as client:
        listed = (await client.get("/v1/items", params={"limit": 100})).json()["items"]
        assert {item["id"] for item in listed} == set(catalogue())
        mug = (await client.get("/v2/items/stoneware-mug")).json()
        assert [price["currency"] for price in mug["prices"]] == ["EUR", "USD"]
    capsys.readouterr()
    assert await anyio.to_thread.run_sync(main, ["seed"]) == 0
    assert capsys.readouterr().out == "items: 0 items added\n"


def test_a_command_that_cannot_run_says_why_in_one_line(tmp_path):
    environment = {**os.environ, "ITEMS_DATABASE_URL": f"sqlite:///{tmp_path / 'empty.db'}"}
    failed = subprocess.run(
        [sys.executable, "-m", "items", "seed"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == [
        (
            "items seed: the database is not migrated; run: python -m chassis migrate items "
            "(on the local platform: make migrate, and make run SERVICE=items)"
        )
    ]


async def test_metrics_name_the_route_and_not_the_item(client, make_item):
    await make_item("desk")
    await client.get("/v1/items/desk")
    text = (await client.get("/metrics")).text
    assert 'route="/v1/items/{item_id}"' in text
    assert "desk" not in text


async def test_no_answer_of_the_list_names_columns_or_sql(client):
    answer = await client.get("/v1/items", params={"cursor": "x", "category": "a'b"})
    assert "SELECT" not in json.dumps(answer.json())
