"""The OpenAPI document, commands, migrations and the audit."""

import anyio
from sqlalchemy import update

from chassis.migrations import status
from chassis.testing.contract import fuzz_contract
from inventory import models
from inventory.__main__ import main
from inventory.main import create_app
from inventory.seed import LEVELS


def test_the_service_keeps_to_its_openapi_document(settings, token_issuer):
    """No 5xx and nothing undeclared, whatever is sent."""
    headers = token_issuer.authorization("admin", "inventory:write inventory:reserve")
    seen = fuzz_contract(
        create_app(settings), headers=headers, known={"item_id": "mug", "reservation_id": "r1"}
    )
    assert len(seen) == 8
    # The requests went deep enough to mean something.
    assert {200, 422} <= seen["POST /v1/check"]
    assert 201 in seen["PUT /v1/stock/{item_id}"]
    assert 200 in seen["POST /v1/reservations/{reservation_id}/release"]


async def test_the_document_is_complete(client):
    """Every operation says what it does, who may, and shows an example of each field."""
    document = (await client.get("/openapi.json")).json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 8
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"] in (["stock"], ["reservations"]), where
        assert operation["security"], where
        assert "401" in operation["responses"], where
    line = document["components"]["schemas"]["Line"]["properties"]
    assert line["item_id"]["examples"] == ["walnut-desk"]
    assert line["quantity"]["examples"] == [2]


async def test_the_migrations_make_what_the_models_say(settings):
    found = await status("inventory", settings)
    assert (found.pending, found.drift) == (False, ())


async def test_the_seed_may_run_again_and_leaves_sales_alone(
    *, settings, app_client, monkeypatch, capsys, token_issuer
):
    monkeypatch.setenv("INVENTORY_DATABASE_URL", settings.database_url)
    assert await anyio.to_thread.run_sync(main, ["seed"]) == 0
    assert capsys.readouterr().out == "inventory: 12 items stocked\n"
    headers = token_issuer.authorization("orders", "inventory:reserve")
    body = {"id": "r1", "lines": [{"item_id": "stoneware-mug", "quantity": 5}]}
    async with app_client(create_app(settings), headers=headers) as client:
        assert (await client.post("/v1/reservations", json=body)).status_code == 201
        await client.post("/v1/reservations/r1/confirm")
        capsys.readouterr()
        assert await anyio.to_thread.run_sync(main, ["seed"]) == 0
        assert capsys.readouterr().out == "inventory: 0 items stocked\n"
        mugs = (await client.get("/v1/stock/stoneware-mug")).json()
        assert mugs["on_hand"] == LEVELS["stoneware-mug"] - 5


def test_both_seeds_speak_of_the_same_items():
    """The two services do not import each other, so this test compares their lists."""
    from items.seed import catalogue

    assert set(LEVELS) == set(catalogue())


async def test_the_audit_finds_what_does_not_add_up(
    *, settings, client, database, put_stock, reserve, monkeypatch, capsys
):
    """The command says what is wrong with which item, and exits with 1."""
    monkeypatch.setenv("INVENTORY_DATABASE_URL", settings.database_url)
    await put_stock(mug=5, pan=3)
    await reserve("r1", mug=2)
    capsys.readouterr()
    assert await anyio.to_thread.run_sync(main, ["audit"]) == 0
    assert capsys.readouterr().out == "inventory: 2 items, 3 movements: all add up\n"
    async with database.session() as session:
        await session.execute(
            update(models.stock).where(models.stock.c.item_id == "pan").values(on_hand=4)
        )
        await session.execute(
            update(models.lines).where(models.lines.c.item_id == "mug").values(quantity=1)
        )
    assert await anyio.to_thread.run_sync(main, ["audit"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "mug: held, by the reservations, should be 1, but is 2",
        "pan: on hand, by the ledger, should be 3, but is 4",
        "inventory: 2 items, 3 movements: mismatches: 2",
    ]


def test_a_command_that_cannot_run_says_why_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INVENTORY_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    assert main(["audit"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        (
            "inventory audit: the database is not migrated; "
            "run: python -m chassis migrate inventory "
            "(on the local platform: make migrate, and make run SERVICE=inventory)"
        )
    ]
    monkeypatch.setenv("INVENTORY_DATABASE_URL", "mysql://nowhere")
    assert main(["seed"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("inventory seed: INVENTORY_DATABASE_URL: ")
    assert error.count("\n") == 1
