"""Credentials through the whole platform."""

from __future__ import annotations

import secrets
import uuid

import pytest

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
