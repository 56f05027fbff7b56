"""Credentials through the whole platform."""

from __future__ import annotations

import secrets
import uuid

import httpx2
import pytest

from scripts.topology import load
from tests.system.harness import Shop

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_no_spelling_of_a_path_makes_a_client_send_its_password_again(shop: Shop) -> None:
    """With and without the slash at the end: answered or 404, never redirected."""
    email, password = f"{uuid.uuid4().hex}@example.org", secrets.token_urlsafe(18)
    made = shop.call("POST", "/v1/users", json={"email": email, "password": password})
    assert made.status_code == 201, made.text
    sent = {"Host": "api.example", "X-Forwarded-Proto": "https"}
    form = {"grant_type": "password", "username": email, "password": password}
    for path, status in (("/v1/token/", 404), ("/v1/token", 200)):
        answer = shop.call("POST", path, data=form, headers=sent)
        assert (answer.status_code, answer.headers.get("location")) == (status, None)
    sent["Authorization"] = f"Bearer {answer.json()['access_token']}"
    for method, path in (("POST", "/login"), ("GET", "/info")):
        for spelling in (path, f"{path}/"):
            answer = shop.call(method, spelling, headers=sent)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_docs_page_of_every_service_can_log_in(shop: Shop, host: str) -> None:
    """What a browser does for "Authorize": it asks for leave, and posts to where tokens are had."""
    email, password = f"{uuid.uuid4().hex}@example.org", secrets.token_urlsafe(18)
    made = shop.call("POST", "/v1/users", at="auth", json={"email": email, "password": password})
    assert made.status_code == 201, made.text
    # As Swagger UI sends it when only name and password are filled in.
    form = {"grant_type": "password", "scope": "", "username": email, "password": password}
    login = {"Authorization": "Basic Og==", "X-Requested-With": "XMLHttpRequest"}
    with_a_log_in = set()
    for service in load():
        port = shop.platform.process(service.name)["port"]
        origin = {"Origin": f"http://{host}:{port}"}
        document = shop.call("GET", "/openapi.json", at=service.name).json()
        schemes = document.get("components", {}).get("securitySchemes", {})
        if "OAuth2" not in schemes:
            continue
        with_a_log_in.add(service.name)
        url = schemes["OAuth2"]["flows"]["password"]["tokenUrl"]
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-requested-with",
        }
        leave = httpx2.options(url, headers={**origin, **asked}, trust_env=False, timeout=30)
        assert leave.status_code == 200, leave.text
        assert leave.headers["access-control-allow-origin"] == origin["Origin"]
        assert "POST" in leave.headers["access-control-allow-methods"]
        allowed = leave.headers["access-control-allow-headers"].replace(" ", "").split(",")
        assert {"authorization", "x-requested-with"} <= set(allowed)

        answer = httpx2.post(
            url, data=form, headers={**origin, **login}, trust_env=False, timeout=30
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == origin["Origin"]
        assert answer.json()["access_token"]
    assert {"auth", "orders", "tasks", "trainers-queries"} <= with_a_log_in
