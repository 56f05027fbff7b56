"""Generated requests: no server error, and no answer that the OpenAPI document does not declare."""

import time
from typing import Any

from joserfc import jwt

from auth.main import create_app
from auth.models import ApiKey, User
from auth.settings import ADMIN_SCOPES, LOGIN_SCOPES, USER_SCOPES
from chassis.clock import SystemClock
from chassis.testing.contract import fuzz_contract

USER = "01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11"
KEY = "01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a12"


def test_the_document_tells_the_truth(auth_settings: Any, signing_key: Any, store_row: Any) -> None:
    """As an administrator with an account and a key; every operation is reached."""
    settings = auth_settings(access_log=False, api_keys_per_user=1000)
    now = SystemClock().now()
    everything = " ".join((*USER_SCOPES, *LOGIN_SCOPES, *ADMIN_SCOPES))
    store_row(
        settings.database_url,
        User(id=USER, email="a@b.example", password_hash="x", scopes=everything, created_at=now),
    )
    store_row(
        settings.database_url,
        ApiKey(
            id=KEY,
            owner_id=USER,
            name="x",
            scopes="profile",
            secret_hash="x",
            created_at=now,
            expires_at=now,
        ),
    )
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": USER,
        "scope": everything,
        "client_id": "slipway",
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
    }
    header = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key.kid}
    token = jwt.encode(header, claims, signing_key, default_type=None)
    seen = fuzz_contract(
        create_app(settings),
        headers={"Authorization": f"Bearer {token}"},
        known={"key_id": KEY},
        examples=15,
    )
    assert 200 in seen["GET /v1/users/me"]
    assert {200, 201} & seen["POST /v1/keys"]
    assert 204 in seen["DELETE /v1/keys/{key_id}"]
    assert 200 in seen["POST /login/"]
    assert 400 in seen["POST /v1/token"]
    assert 401 in seen["POST /internal/exchange"]
    assert len(seen) == 12


async def test_every_operation_is_documented(api: Any) -> None:
    """A summary, a tag and a description; forms and errors of the token endpoint have examples."""
    document = (await api.http.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            assert operation["description"], (method, path)
    token = document["paths"]["/v1/token"]["post"]
    form = token["requestBody"]["content"]["application/x-www-form-urlencoded"]
    assert set(form["examples"]) == {"password", "refresh_token", "client_credentials"}
    assert token["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/OAuthProblem"
    )
    for page in ("/docs", "/redoc"):
        assert (await api.http.get(page)).status_code == 200
