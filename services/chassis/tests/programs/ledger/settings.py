"""Its settings."""

from chassis import DatabaseSettings, settings_config


class Settings(DatabaseSettings):
    """See `ServiceSettings`."""

    model_config = settings_config("ledger")

    service_name: str = "ledger"
