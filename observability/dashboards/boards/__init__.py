"""One module for each dashboard."""

from collections.abc import Callable

from observability.dashboards.boards import (
    gateway,
    kubernetes,
    orders,
    overview,
    postgresql,
    service,
    slo,
)
from observability.dashboards.library import Board

ALL: tuple[Callable[[], Board], ...] = (
    overview.make,
    service.make,
    gateway.make,
    orders.make,
    kubernetes.make,
    postgresql.make,
    slo.make,
)
