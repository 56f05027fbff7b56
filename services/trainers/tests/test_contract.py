"""The OpenAPI document tells the truth, by generated requests; the schema is that of the models."""

import pytest

from chassis.migrations import status
from chassis.testing.contract import fuzz_contract
from trainers.main import create_app


@pytest.mark.parametrize("role", ["commands", "queries"])
@pytest.mark.timeout(300)
def test_the_document_tells_the_truth(settings, token_issuer, role):
    """Generated requests: no 5xx, and no answer that the OpenAPI document does not declare."""
    headers = token_issuer.authorization("admin", "trainers:read trainers:book trainers:write")
    app = create_app(settings.model_copy(update={"role": role, "read_wait_seconds": 0.05}))
    seen = fuzz_contract(app, headers=headers, examples=15)
    assert len(seen) == {"commands": 8, "queries": 4}[role]
    assert any(200 <= status < 300 for each in seen.values() for status in each)


async def test_the_migrations_make_what_the_models_say(settings):
    found = await status("trainers", settings)
    assert not found.pending
    assert found.drift == ()
