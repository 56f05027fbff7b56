"""The life of a service inside its process: wait for its migrations, set up, work, close.

All of it runs in one task, so that what `setup` enters is left where it was entered. The start
does not crash over a database that is away or not migrated yet: the process serves its probes,
says in `/startupz` what it waits for, and goes on by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio.to_thread

from chassis.runtime import Runtime
from chassis.settings import DatabaseSettings
from chassis.workers import Supervisor, Worker

Setup = Callable[[Runtime], AbstractAsyncContextManager[None]]

POLL_SECONDS = 1.0


class Service:
    """Runs one service from the start of its lifespan to the end."""

    def __init__(
        self, runtime: Runtime, *, workers: Mapping[str, Worker], setup: Setup | None
    ) -> None:
        self._runtime = runtime
        self._supervisor = Supervisor(runtime, workers)
        self._setup = setup

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the service inside the block.

        Entering returns once the service is warm, or once it must wait for its migrations; it
        raises what `setup` raises.
        """
        settled = asyncio.Event()
        stop = asyncio.Event()
        self._runtime.lifecycle.begin()
        task = asyncio.create_task(self._live(settled, stop), name="service")
        waiter = asyncio.create_task(settled.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield
        finally:
            waiter.cancel()
            self._runtime.lifecycle.started = False
            stop.set()
            await self._end(task)

    async def _end(self, task: asyncio.Task[None]) -> None:
        if self._runtime.lifecycle.waiting is not None:
            task.cancel()  # it waits for migrations: nothing is open yet
        try:
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._runtime.close()
        provider = self._runtime.tracer_provider
        if provider is not None:
            await anyio.to_thread.run_sync(provider.shutdown)  # bounded by the exporter's timeout

    async def _live(self, settled: asyncio.Event, stop: asyncio.Event) -> None:
        try:
            await self._work(settled, stop)
        except Exception as exc:
            self._runtime.lifecycle.failed = exc
            raise

    async def _work(self, settled: asyncio.Event, stop: asyncio.Event) -> None:
        lifecycle = self._runtime.lifecycle
        while (reason := await self._obstacle()) is not None:
            if reason != lifecycle.waiting:
                self._runtime.log.warning("service.waiting", reason=reason)
            lifecycle.waiting = reason
            settled.set()
            await self._runtime.clock.sleep(POLL_SECONDS)
        async with AsyncExitStack() as stack:
            if self._setup is not None:
                await stack.enter_async_context(self._setup(self._runtime))
            await stack.enter_async_context(self._supervisor.running())
            lifecycle.waiting = None
            lifecycle.started = True
            settled.set()
            await stop.wait()

    async def _obstacle(self) -> str | None:
        """Return why the service cannot work yet, or None."""
        settings = self._runtime.settings
        if settings.serverless or not isinstance(settings, DatabaseSettings):
            return None
        # Alembic is slow to import; a function never needs it.
        from chassis.migrations import (  # noqa: PLC0415
            MigrationError,
            migrations_directory,
            needs_migration,
        )

        package = settings.package or settings.service_name.replace("-", "_")
        try:
            migrations_directory(package)
        except MigrationError:
            return None  # a service without migrations brings its own tables
        try:
            pending = await needs_migration(package, settings)
        except MigrationError as exc:
            return str(exc)
        return "database migrations are pending" if pending else None
