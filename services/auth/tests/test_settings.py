"""Settings: what stops the start, in one line that names the fix."""

import base64
import json
import secrets
from collections.abc import Mapping

import pytest

from auth.settings import Settings
from chassis.settings import SettingsError, load_settings

KEY = base64.b64encode(secrets.token_bytes(32)).decode()
CLIENT = json.dumps({"orders": {"secret": secrets.token_urlsafe(24), "scopes": ["events:deliver"]}})
GOOD = {
    "AUTH_ENVIRONMENT": "production",
    "AUTH_KEY_ENCRYPTION_KEY": KEY,
    "AUTH_CLIENTS": CLIENT,
}


def load(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str | None]) -> Settings:
    monkeypatch.delenv("SLIPWAY_SECRETS_DIR", raising=False)
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return load_settings(Settings)


def test_production_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no secret shows in their text."""
    settings = load(monkeypatch, GOOD)
    assert settings.clients["orders"].scopes == ("events:deliver",)
    assert KEY not in repr(settings)
    assert json.loads(CLIENT)["orders"]["secret"] not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"AUTH_KEY_ENCRYPTION_KEY": None}, "AUTH_KEY_ENCRYPTION_KEY: is required in production"),
        ({"AUTH_KEY_ENCRYPTION_KEY": "changeme"}, "AUTH_KEY_ENCRYPTION_KEY: is a placeholder"),
        ({"AUTH_KEY_ENCRYPTION_KEY": "c2hvcnQ="}, "AUTH_KEY_ENCRYPTION_KEY: .*openssl rand"),
        ({"AUTH_ARGON2_MEMORY_KIB": "8"}, "AUTH_ARGON2_MEMORY_KIB: too cheap for production"),
        ({"AUTH_ARGON2_PASSES": "1"}, "AUTH_ARGON2_MEMORY_KIB: too cheap for production"),
        ({"AUTH_CLIENTS": "{"}, "AUTH_CLIENTS: .*JSON"),
        ({"AUTH_CLIENTS": '{"orders": {"secret": "changeme"}}'}, "AUTH_CLIENTS: "),
        (
            {"AUTH_CLIENTS": '{"orders": {"secret": "x7f-short"}}'},
            "AUTH_CLIENTS: .*orders is short",
        ),
        (
            {"AUTH_CLIENTS": '{"orders": {"secret": "0123456789abcdefgh", "scopes": ["a b"]}}'},
            "AUTH_CLIENTS: ",
        ),
        ({"AUTH_ACCESS_TOKEN_SECONDS": "86400"}, "AUTH_ACCESS_TOKEN_SECONDS: "),
        ({"AUTH_PASSWORD_MIN_LENGTH": "4"}, "AUTH_PASSWORD_MIN_LENGTH: "),
    ],
)
def test_a_bad_setting_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], says: str
) -> None:
    """One line, which names the variable and not its value."""
    with pytest.raises(SettingsError, match=says) as caught:
        load(monkeypatch, {**GOOD, **changes})
    assert "\n" not in str(caught.value)
    assert "x7f-short" not in str(caught.value)


def test_development_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new user starts auth without a single variable."""
    settings = load(monkeypatch, dict.fromkeys(GOOD))
    assert settings.key_encryption_key is None
    assert settings.clients == {}
