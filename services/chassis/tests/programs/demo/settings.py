"""Its settings."""

from chassis import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """See `ServiceSettings`."""

    model_config = settings_config("demo")

    service_name: str = "demo"
