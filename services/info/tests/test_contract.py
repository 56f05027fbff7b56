"""Generated requests: no server error, and no answer that the OpenAPI document does not declare."""

from pathlib import Path
from typing import Any

from chassis.testing.contract import fuzz_contract
from info.main import create_app
from info.settings import Settings


def test_the_document_tells_the_truth(make_settings: Any, token_issuer: Any) -> None:
    """With a token and with whatever the generator puts into the header."""
    settings = make_settings(Settings, access_log=False, peer_retries=0)
    seen = fuzz_contract(create_app(settings), headers=token_issuer.authorization(), examples=20)
    assert seen == {"GET /info/": {200}}
    seen = fuzz_contract(create_app(settings), headers={}, examples=20)
    assert 401 in seen["GET /info/"]
    assert seen["GET /info/"] <= {200, 401, 503}


def test_the_example_stays_small() -> None:
    """People copy it: forty lines, give or take two."""
    import info.main

    assert len(Path(info.main.__file__).read_text(encoding="utf-8").splitlines()) <= 42
