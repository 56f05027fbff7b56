"""Settings of the notifications service; environment variables with prefix `NOTIFICATIONS_`."""

from chassis.settings import EventSettings, settings_config


class Settings(EventSettings):
    """What can be set."""

    model_config = settings_config("notifications")

    service_name: str = "notifications"
