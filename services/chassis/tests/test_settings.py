"""Settings: where values come from, and the one line that a bad one gives."""

from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from chassis.settings import (
    EventSettings,
    ServiceSettings,
    SettingsError,
    load_settings,
    settings_config,
)


class Client(BaseModel):
    """A secret inside of a map."""

    secret: SecretStr
    scopes: list[str] = []


class Settings(EventSettings):
    """The settings of a service with everything."""

    model_config = settings_config("orders")

    service_name: str = "orders"
    items_url: str = "http://items"
    clients: dict[str, Client] = Field(default_factory=dict)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(tmp_path / "secrets"))


def test_defaults_follow_the_service_name() -> None:
    """Without anything set, a service starts on its own SQLite file and peers by their names."""
    settings = load_settings(Settings)
    assert settings.database_url == "sqlite:///.slipway/data/orders.db"
    assert settings.client_id == "orders"
    assert settings.jwks_url == "http://auth/.well-known/jwks.json"
    assert settings.environment == "development"
    assert settings.otlp_endpoint is None
    assert settings.client_secret is None


def test_derived_values_follow_what_they_derive_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_AUTH_URL", "http://127.0.0.1:9001/")
    monkeypatch.setenv("ORDERS_CLIENT_ID", "orders-2")
    settings = load_settings(Settings)
    assert settings.jwks_url == "http://127.0.0.1:9001/.well-known/jwks.json"
    assert settings.client_id == "orders-2"


def test_environment_wins_over_secret_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A secret is read from a file named like its variable; the environment comes first."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "orders_client_secret").write_text("from-a-file\n")
    (secrets / "ORDERS_DATABASE_URL").write_text("postgresql://u:fh37fh3@db/orders")
    settings = load_settings(Settings)
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "from-a-file"
    assert settings.database_url == "postgresql://u:fh37fh3@db/orders"
    monkeypatch.setenv("ORDERS_CLIENT_SECRET", "from-the-environment")
    settings = load_settings(Settings)
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "from-the-environment"


def test_settings_are_frozen() -> None:
    settings = load_settings(Settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PORT", "x", "unable to parse string as an integer; give a whole number such as 8000"),
        ("PORT", "70000", "less than or equal to 65535; use a value <= 65535"),
        ("WORKERS", "0", "greater than 0; use a value > 0"),
        ("LOG_LEVEL", "loud", "; use 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("ACCESS_LOG", "maybe", "; use true or false"),
        ("TRACE_SAMPLE_RATIO", "1.5", "less than or equal to 1; use a value <= 1.0"),
        ("AUTH_URL", "auth:8000", "not an absolute HTTP URL; give one such as http://auth:8000"),
        ("DATABASE_URL", "mysql://x", "supported database; use postgresql://"),
        ("SUBSCRIBERS", "{", "not valid JSON; give valid JSON"),
        ("SUBSCRIBERS", '{"a": 1}', "at a: Input should be a valid list; correct the value"),
        ("SUBSCRIBERS", '{"a": ["http://[x"]}', "at a.0: not an absolute HTTP URL; give one such"),
        ("SUBSCRIBERS", '{"a": ["http://b", "b:80"]}', "at a.1: not an absolute HTTP URL; give"),
        ("SUBSCRIBERS", '{"a": ["http://b:99999/"]}', "at a.0: not an absolute HTTP URL; give"),
        ("SUBSCRIBERS", f'{{"a": ["http://b/{"x" * 500}"]}}', "at a.0: String should have at most"),
        ("ENVIRONMENT", "prod", "use 'development', 'test', 'staging' or 'production'"),
        ("SERVICE_NAME", "Not A Name", "; "),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(f"ORDERS_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings)
    text = str(caught.value)
    assert text.startswith(f"ORDERS_{name}: ")
    assert line in text
    assert "\n" not in text


def test_a_missing_value_says_where_to_set_it() -> None:
    class Needs(ServiceSettings):
        model_config = settings_config("needs")
        model_path: str

    with pytest.raises(SettingsError, match=r"^NEEDS_MODEL_PATH: field required; set it in the"):
        load_settings(Needs)


def test_several_bad_values_are_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_PORT", "x")
    monkeypatch.setenv("ORDERS_WORKERS", "y")
    with pytest.raises(SettingsError, match=r"^ORDERS_PORT: .*\(also wrong: ORDERS_WORKERS\)$"):
        load_settings(Settings)


def test_the_value_itself_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad URL may hold a password; neither the error nor its cause repeats it."""
    monkeypatch.setenv("ORDERS_DATABASE_URL", "mysql://u:hunter2-x@db/x")
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "secret",
    ["changeme", "CHANGE_ME", "change-me-please", "secret", "password1", "example", "<secret>",
     "${SECRET}", "xxxxxx", "your-secret", " ", "postgres"],
)  # fmt: skip
def test_placeholders_are_refused_where_it_matters(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("ORDERS_CLIENT_SECRET", secret)
    assert load_settings(Settings).client_secret is not None
    for environment in ("staging", "production"):
        monkeypatch.setenv("ORDERS_ENVIRONMENT", environment)
        with pytest.raises(SettingsError, match=r"^ORDERS_CLIENT_SECRET: is a placeholder, refus"):
            load_settings(Settings)


def test_a_real_secret_is_taken_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_ENVIRONMENT", "production")
    monkeypatch.setenv("ORDERS_CLIENT_SECRET", "kW3-examples-9f2c1")
    load_settings(Settings)


def test_placeholders_inside_of_maps_and_urls_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORDERS_ENVIRONMENT", "production")
    monkeypatch.setenv("ORDERS_CLIENTS", '{"items": {"secret": "changeme"}}')
    with pytest.raises(SettingsError, match=r"^ORDERS_CLIENTS: is a placeholder"):
        load_settings(Settings)
    monkeypatch.delenv("ORDERS_CLIENTS")
    monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://orders:password@db/orders")
    with pytest.raises(SettingsError, match=r"^ORDERS_DATABASE_URL: is a placeholder"):
        load_settings(Settings)


def test_a_release_has_the_version_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own name is that of no distribution."""
    monkeypatch.delenv("SLIPWAY_VERSION", raising=False)

    class Release(ServiceSettings):
        package: ClassVar[str] = "chassis"
        service_name: str = "chassis-reads"

    assert Release().version == metadata.version("slipway-chassis")
    monkeypatch.setenv("SLIPWAY_VERSION", "1.4.2")
    assert Release().version == "1.4.2"
