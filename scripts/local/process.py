"""One supervised process: started, watched, restarted with backoff, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx2

from scripts.local import logfile
from scripts.local.forks import Fork, ForkError, Forks
from scripts.local.procs import Identity, end_with_parent, group_alive, kill_group

BAD_CONFIGURATION = 2  # the exit code with which every tool and service refuses its settings
_FIRST_BACKOFF = 0.2
_STABLE_SECONDS = 10.0
_TRIES = 3
_STARTING_POLL = 0.2
_HELD_POLL = 0.1
_RUNNING_POLL = 2.0
_PROBE_TIMEOUT = 2.0


class State(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "not ready"
    BACKOFF = "restarting"
    HELD = "held"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Spec:
    """What to run and how to tell that it is ready.

    `ready_urls` must all answer 200. `drain` is awaited before SIGTERM, bounded by `stop_seconds`,
    which also bounds the time from SIGTERM to SIGKILL. `forkable` says that `argv` is
    `python -m MODULE ...` with the interpreter and directory of the runner.
    """

    name: str
    argv: tuple[str, ...]
    port: int
    env: Mapping[str, str] = field(default_factory=dict)
    ready_urls: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    stop_seconds: float = 10.0
    drain: Callable[[], Awaitable[None]] | None = None
    url: str = ""
    docs: str = ""
    metrics: str = ""  # where Prometheus may scrape it
    forkable: bool = False


@dataclass
class Status:
    """What can be seen of a process; times in seconds of the monotonic clock."""

    state: State = State.WAITING
    pid: int | None = None
    since: float | None = None  # start of the current process
    ready_after: float | None = None  # seconds from its start until it was ready
    restarts: int = 0
    retry_seconds: float = 0.0  # until the next start, while restarting
    exit: str | None = None
    last_error: str | None = None


class ManagedProcess:
    """Runs one `Spec`. `on_change` hears of every change of state, `on_spawn` of every start.

    `ready` is set while the process is ready; `hopeless` once it died several times in a row
    before it was ready, or said that its settings are wrong: starting it again will hardly help.
    While the file `hold` is there it stays dead once it has ended. `restart_cap` is the longest
    pause before a restart, in seconds.
    """

    def __init__(
        self,
        spec: Spec,
        log: Path,
        client: httpx2.AsyncClient,
        forks: Forks,
        *,
        on_change: Callable[[ManagedProcess], None],
        on_spawn: Callable[[str, Identity], None],
        hold: Path,
        restart_cap: float,
    ) -> None:
        self.spec = spec
        self.log = log
        self.status = Status()
        self.ready = asyncio.Event()
        self.hopeless = asyncio.Event()
        self.ever_ready = False
        self._failed_starts = 0
        self._client = client
        self._forks = forks
        self._hold = hold
        self._restart_cap = restart_cap
        self._on_change = on_change
        self._on_spawn = on_spawn
        self._stop = asyncio.Event()
        self._identity: Identity | None = None
        self._seen = 0  # offset in the log up to which errors were looked for

    async def run(self) -> None:
        """Keep the process running until `stop`."""
        backoff = _FIRST_BACKOFF
        while not self._stop.is_set():
            if self._hold.exists():
                backoff = _FIRST_BACKOFF
                self._set(State.HELD)
                await self._stopped_within(_HELD_POLL)
                continue
            stable = await self._run_once()
            if self._stop.is_set() or self._hold.exists():
                continue
            backoff = _FIRST_BACKOFF if stable else min(backoff * 2, self._restart_cap)
            self.status.retry_seconds = backoff
            self._set(State.BACKOFF)
            self.status.restarts += not await self._stopped_within(backoff)
        self._set(State.STOPPED)

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def _run_once(self) -> bool:
        """One life of the process. True when it was ready for long enough to forget old crashes."""
        self._seen = born = self.log.stat().st_size if self.log.exists() else 0
        process = await self._spawn()
        watcher = asyncio.create_task(self._watch_ready())
        stopper = asyncio.create_task(self._end_on_stop(process))
        try:
            code = await process.wait()
        finally:
            watcher.cancel()
            stopper.cancel()
            await asyncio.gather(watcher, stopper, return_exceptions=True)
        self._end_group()
        uptime = time.monotonic() - (self.status.since or 0)
        was_ready = self.status.ready_after is not None
        self.ready.clear()
        self.status.pid = None
        self.status.exit = describe_exit(code)
        if not self._stop.is_set() and not self._hold.exists():
            said = logfile.last_words(self.log, born)
            self.status.last_error = said or self.status.exit
            self._failed_starts = 0 if was_ready else self._failed_starts + 1
            if not was_ready and (code == BAD_CONFIGURATION or self._failed_starts >= _TRIES):
                self.hopeless.set()
        return was_ready and uptime >= _STABLE_SECONDS

    async def _spawn(self) -> asyncio.subprocess.Process | Fork:
        output = logfile.open_log(self.log)
        try:
            process = await self._forked(output) or await self._executed(output)
        finally:
            os.close(output)
        identity = Identity.of(process.pid)
        if identity is not None:
            self._identity = identity
            self._on_spawn(self.spec.name, identity)
        self.status.pid = process.pid
        self.status.since = time.monotonic()
        self.status.ready_after = None
        self._set(State.STARTING)
        return process

    async def _forked(self, output: int) -> Fork | None:
        if not (self.spec.forkable and self._forks.usable):
            return None
        try:
            return await self._forks.spawn(self.spec.argv, self.spec.env, output)
        except ForkError:
            return None  # the plain way takes longer, that is all

    async def _executed(self, output: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.spec.argv,
            env=self.spec.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a terminal's Ctrl-C is for the runner alone
            preexec_fn=end_with_parent(),
        )

    async def _watch_ready(self) -> None:
        """Follow the probes until the process ends or is asked to."""
        while not self._stop.is_set():
            healthy = await self._probe()
            if self._stop.is_set():
                return
            if healthy:
                if self.status.ready_after is None:
                    self.status.ready_after = time.monotonic() - (self.status.since or 0)
                self.ready.set()
                self.ever_ready = True
                self._set(State.READY)
            elif self.ready.is_set():
                self.ready.clear()
                self._set(State.UNREADY)
            self.read_log()
            settled = self.ready.is_set()
            await asyncio.sleep(_RUNNING_POLL if settled else _STARTING_POLL)

    async def _probe(self) -> bool:
        try:
            for url in self.spec.ready_urls:
                if (await self._client.get(url, timeout=_PROBE_TIMEOUT)).status_code != 200:  # noqa: PLR2004
                    return False
        except httpx2.HTTPError:
            return False
        return True

    def read_log(self) -> None:
        """Look for errors in what the process wrote since the last look, and bound the log."""
        lines, self._seen = logfile.tail(self.log, self._seen)
        self.status.last_error = logfile.last_error(lines) or self.status.last_error
        logfile.rotate(self.log)

    def stop(self) -> None:
        """Ask for the end; `run` returns when it is reached."""
        self._stop.set()

    async def _end_on_stop(self, process: asyncio.subprocess.Process | Fork) -> None:
        await self._stop.wait()
        self._set(State.STOPPING)
        if self.spec.drain is not None:
            with contextlib.suppress(TimeoutError, httpx2.HTTPError):
                await asyncio.wait_for(self.spec.drain(), self.spec.stop_seconds)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.sleep(self.spec.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the process and everything in its group."""
        if self._identity is not None:
            kill_group(self._identity, signal.SIGKILL)

    def _end_group(self) -> None:
        """What a dead process left in its group would keep its port: end it too."""
        if self._identity is not None and group_alive(self._identity):
            kill_group(self._identity, signal.SIGKILL)

    def _set(self, state: State) -> None:
        if state is not self.status.state:
            self.status.state = state
            self._on_change(self)


def describe_exit(code: int) -> str:
    """`exit code 3` or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
