"""A bad setting stops the start with one line that names it and the fix."""

import pytest

from chassis.settings import SettingsError, load_settings
from stream.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STREAM_VALKEY_URL", "http://valkey", "use valkey://"),
        ("STREAM_SLOW_CLIENTS", "ignore", "use 'drop_oldest' or 'disconnect'"),
        ("STREAM_QUEUE_MESSAGES", "0", "use a value >= 1"),
        ("STREAM_TICKET_SECONDS", "3600", "use a value"),
    ],
)
def test_a_bad_value_is_refused(monkeypatch, name, value, says):
    """Before anything is opened."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load_settings(Settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_production_needs_a_valkey(monkeypatch):
    """Replicas that do not share their events would each tell a part."""
    monkeypatch.setenv("STREAM_ENVIRONMENT", "production")
    with pytest.raises(SettingsError, match="STREAM_VALKEY_URL: is required in production"):
        load_settings(Settings)
    monkeypatch.setenv("STREAM_VALKEY_URL", "valkeys://:a-good-long-password-8Kd@valkey.internal/0")
    assert load_settings(Settings).valkey_url.startswith("valkeys://")


def test_several_processes_need_a_valkey(monkeypatch):
    """Each would tell its clients only what it was told itself."""
    monkeypatch.setenv("STREAM_WORKERS", "2")
    with pytest.raises(SettingsError, match="STREAM_WORKERS: 2 processes need") as refused:
        load_settings(Settings)
    assert "STREAM_VALKEY_URL" in str(refused.value)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("STREAM_VALKEY_URL", "valkey://localhost:6379/0")
    assert load_settings(Settings).workers == 2


def test_the_defaults_are_those_of_one_process(monkeypatch):
    """No Valkey, the gentle policy."""
    settings = load_settings(Settings)
    assert (settings.valkey_url, settings.slow_clients) == ("", "drop_oldest")
