"""Settings of the inventory; the variables start with `INVENTORY_`."""

from pydantic import PositiveFloat, PositiveInt

from chassis.settings import DatabaseSettings, settings_config


class Settings(DatabaseSettings):
    """What can be set, with the embedded defaults."""

    model_config = settings_config("inventory")

    service_name: str = "inventory"

    reservation_default_seconds: PositiveInt = 900
    """How long units are held if the client does not say."""

    expiry_poll_seconds: PositiveFloat = 1.0
    """Pause between two looks for reservations that ran out."""

    expiry_batch: PositiveInt = 100
    """Reservations that one look may end."""

    gauge_seconds: PositiveFloat = 15.0
    """Pause between two counts of the stock for its metrics."""
