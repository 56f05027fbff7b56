"""Settings of the orders service; every one is an environment variable with prefix `ORDERS_`."""

from pydantic import Field

from chassis.settings import EventSettings, settings_config


class Settings(EventSettings):
    """What can be set; times are seconds."""

    model_config = settings_config("orders")

    service_name: str = "orders"
    items_url: str = "http://items"
    inventory_url: str = "http://inventory"

    saga_inline_seconds: float = Field(
        default=4.0,
        gt=0,
        description="How long a request waits for its order before it answers 202.",
    )
    saga_lease_seconds: float = Field(
        default=10.0,
        gt=0,
        description="After this long without a sign of life another process takes an order over.",
    )
    saga_poll_seconds: float = Field(default=0.5, gt=0)
    saga_batch: int = Field(default=10, ge=1, description="Orders that are driven at once.")
    saga_backoff_seconds: float = Field(default=0.5, gt=0)
    saga_backoff_cap_seconds: float = Field(default=4.0, gt=0)
    saga_give_up_seconds: float = Field(
        default=86400.0,
        gt=0,
        description="An order that waits longer than this for a peer is rejected and undone.",
    )
