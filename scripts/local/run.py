"""One run of the platform in this process, from the lock to the last process gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable

import httpx2

from scripts.local.forks import Forks
from scripts.local.lock import end_leftovers, running
from scripts.local.options import Options
from scripts.local.ports import require_free
from scripts.local.stack import Stack
from scripts.local.supervisor import Supervisor
from scripts.local.view import Reporter

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 1.0


def run(
    options: Options,
    build: Callable[[Options], Stack],
    reporter: Reporter,
    *,
    background: bool = False,
) -> None:
    """Run the platform until it is told to stop.

    Raises:
        RunnerError: it does not start; nothing is left running.
    """
    home = options.home
    with running(home):
        for name in end_leftovers(home):
            reporter.line(f"{name}: ended, it was left by a run that died")
        for hold in home.run.glob("hold-*"):
            hold.unlink()
        stack = build(options)
        require_free(stack.ports)
        with reporter:
            asyncio.run(_Run(options, stack, reporter, background=background).main())


class _Run:
    """The state of one run."""

    def __init__(
        self, options: Options, stack: Stack, reporter: Reporter, *, background: bool
    ) -> None:
        self._options = options
        self._stack = stack
        self._reporter = reporter
        self._background = background
        self._stop = asyncio.Event()
        self._supervisor: Supervisor | None = None

    async def main(self) -> None:
        """Bring it up, wait for a signal, take it down."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        # Probes keep no connection: a stopping server need not wait for us.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(limits=limits, trust_env=False) as client, Forks() as forks:
            work = asyncio.create_task(self._bring_up(client, forks))
            stopped = asyncio.create_task(self._stop.wait())
            try:
                while not stopped.done():
                    waits = {stopped} if work.done() else {stopped, work}
                    await asyncio.wait(
                        waits, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if work.done():
                        await work  # raises what stopped it
                    self._reporter.tick()
            finally:
                for task in (work, stopped):
                    task.cancel()
                await asyncio.gather(work, stopped, return_exceptions=True)
                await self._take_down()

    def _on_signal(self) -> None:
        if self._stop.is_set() and self._supervisor is not None:
            self._supervisor.kill()  # asked twice: no more patience
        self._stop.set()

    async def _bring_up(self, client: httpx2.AsyncClient, forks: Forks) -> None:
        began = time.monotonic()
        if self._stack.forks:
            await forks.warm()  # meanwhile the databases are made ready
        specs = await self._stack.prepare()
        self._supervisor = Supervisor(
            self._options.home,
            specs,
            client,
            forks,
            on_change=self._reporter.changed,
            restart_cap=self._options.restart_cap_seconds,
        )
        self._supervisor.set_phase("starting")
        self._reporter.watch(list(self._supervisor.processes.values()))
        await self._supervisor.start(self._options.start_seconds)
        await self._stack.finish(client)
        self._reporter.summary(self._stack.closing_words())
        how = "`make down` stops it" if self._background else "Ctrl-C stops it"
        self._reporter.line(f"Ready after {time.monotonic() - began:.1f} s; {how}.")
        self._supervisor.set_phase("ready")

    async def _take_down(self) -> None:
        if self._supervisor is None:
            return
        self._reporter.line("Stopping.")
        await self._supervisor.stop()
        self._reporter.tick()
        with contextlib.suppress(OSError):
            self._supervisor.set_phase("stopped")
