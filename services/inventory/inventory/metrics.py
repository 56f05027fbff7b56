"""Metrics of the inventory. A gauge per item would grow with the catalogue, so these are sums."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import case, func, select

from chassis.runtime import Runtime
from inventory.models import reservations, stock
from inventory.reservations import State
from inventory.settings import Settings

OUTCOMES = ("held", "insufficient", "confirmed", "released", "returned", "expired")


@dataclass(frozen=True, slots=True)
class Metrics:
    """The instruments of one application.

    The gauges describe the shared database: every replica shows the same value, so queries take
    the maximum and not the sum.
    """

    reservations: Counter
    items: Gauge
    items_out_of_stock: Gauge
    reservations_held: Gauge
    units: Gauge

    @classmethod
    def register(cls, registry: CollectorRegistry) -> "Metrics":
        """Create the instruments in `registry`."""
        counter = Counter(
            "inventory_reservations_total",
            "Reservations that were made, refused or ended, by outcome",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            counter.labels(outcome)
        return cls(
            reservations=counter,
            items=Gauge("inventory_items", "Items with a stock", registry=registry),
            items_out_of_stock=Gauge(
                "inventory_items_out_of_stock",
                "Items of which nothing can be reserved",
                registry=registry,
            ),
            reservations_held=Gauge(
                "inventory_reservations_held",
                "Reservations that hold units and are not confirmed",
                registry=registry,
            ),
            units=Gauge(
                "inventory_units",
                "Units of all items: free ones, and those that reservations hold",
                ["state"],
                registry=registry,
            ),
        )


def metrics_of(runtime: Runtime) -> Metrics:
    """Return the instruments of this application."""
    metrics = runtime.extras["metrics"]
    assert isinstance(metrics, Metrics)
    return metrics


async def gauge_worker(runtime: Runtime) -> None:
    """Count the stock now and then, for ever."""
    settings = runtime.settings
    assert isinstance(settings, Settings)
    while True:
        await count(runtime)
        await runtime.clock.sleep(settings.gauge_seconds)


async def count(runtime: Runtime) -> None:
    """Set the gauges from the database: one pass over the stock, one over an index."""
    metrics = metrics_of(runtime)
    async with runtime.database.reading() as session:
        of_all = await session.execute(
            select(
                func.count().label("items"),
                func.count(case((stock.c.on_hand == stock.c.held, 1))).label("out_of_stock"),
                func.coalesce(func.sum(stock.c.on_hand), 0).label("on_hand"),
                func.coalesce(func.sum(stock.c.held), 0).label("held"),
            )
        )
        row = of_all.one()
        metrics.items.set(row.items)
        metrics.items_out_of_stock.set(row.out_of_stock)
        metrics.units.labels("free").set(row.on_hand - row.held)
        metrics.units.labels("held").set(row.held)
        held = select(func.count()).select_from(reservations)
        held = held.where(reservations.c.state == State.HELD.value)
        metrics.reservations_held.set(await session.scalar(held) or 0)
