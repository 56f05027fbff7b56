"""Settings of the notifications service; environment variables with prefix `NOTIFICATIONS_`."""

from chassis.settings import DatabaseSettings, settings_config


class Settings(DatabaseSettings):
    """What can be set."""

    model_config = settings_config("notifications")

    service_name: str = "notifications"
