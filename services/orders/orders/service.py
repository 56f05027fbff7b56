"""What one process holds to work on orders."""

from typing import cast

from chassis.runtime import Runtime
from orders.driver import Driver
from orders.metrics import OrderMetrics
from orders.peers import Peers
from orders.settings import Settings
from orders.worker import Recovery

_KEY = "orders"


class Orders:
    """The parts of the service, put together once per application."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        assert isinstance(settings, Settings)
        self.runtime = runtime
        self.settings = settings
        self.metrics = OrderMetrics(runtime.registry)
        self.peers = Peers(runtime.peer("items"), runtime.peer("inventory"))
        self.driver = Driver(runtime, settings, self.peers, self.metrics)
        self.recovery = Recovery(runtime, settings, self.driver, self.peers, self.metrics)
        runtime.extras[_KEY] = self


def orders_of(runtime: Runtime) -> Orders:
    """Return the parts of the service that `runtime` belongs to."""
    return cast("Orders", runtime.extras[_KEY])
