"""How full the thread pool is: what blocking work of a request waits for before it may run."""

from __future__ import annotations

from collections.abc import Iterator

from anyio import NoEventLoopError
from anyio.to_thread import current_default_thread_limiter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class ThreadPoolCollector(Collector):
    """Reads the default limiter of the event loop that is scraped; requests pay nothing for it.

    Plain `def` handlers and files take its tokens (40, unless a service changes it). Outside an
    event loop there is none, and the families are empty.
    """

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families without samples."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the tokens in use and free, and how many tasks wait for one."""
        tokens, waiting = self._families()
        try:
            found = current_default_thread_limiter().statistics()
        except NoEventLoopError:
            pass
        else:
            tokens.add_metric(["used"], found.borrowed_tokens)
            tokens.add_metric(["free"], max(found.total_tokens - found.borrowed_tokens, 0))
            waiting.add_metric([], found.tasks_waiting)
        yield tokens
        yield waiting

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("thread_pool_tokens", "Threads for blocking work", labels=["state"]),
            GaugeMetricFamily("thread_pool_waiting", "Tasks that wait for a thread"),
        )
