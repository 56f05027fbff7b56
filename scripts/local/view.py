"""What the person at the terminal sees: plain lines in a pipe, a live table on a screen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scripts.local.columns import aligned
from scripts.local.process import ManagedProcess, State
from scripts.local.procs import age

_COLOURS = {
    State.READY: "green",
    State.STARTING: "yellow",
    State.UNREADY: "yellow",
    State.BACKOFF: "red",
}


class Reporter:
    """Plain lines, for a pipe or a log: one line per event."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._processes: Sequence[ManagedProcess] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def line(self, text: str) -> None:
        """Print one line exactly as it is: never wrapped, so that it can be copied."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def watch(self, processes: Sequence[ManagedProcess]) -> None:
        """Show these from now on."""
        self._processes = processes

    def changed(self, process: ManagedProcess) -> None:
        """Hear of a change of state."""
        if (text := describe_change(process)) is not None:
            self.line(text)

    def tick(self) -> None:
        """Redraw what moves with time."""

    def summary(self, words: Iterable[str]) -> None:
        """The table of everything that runs, and the closing words."""
        self.line(plain_table(self._processes))
        for word in words:
            self.line(word)

    def close(self) -> None:
        """Leave the screen as it is."""


class LiveReporter(Reporter):
    """The same on a screen, with a table of states that follows what happens."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # Refreshed by `tick` only: a thread of its own would run beside the forks of the runner.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def watch(self, processes: Sequence[ManagedProcess]) -> None:
        """Show these from now on."""
        super().watch(processes)
        self._live.start()
        self.tick()

    def changed(self, process: ManagedProcess) -> None:
        """Hear of a change: only what went wrong deserves a line, the table shows the rest."""
        if process.status.state is State.BACKOFF:
            super().changed(process)
        self.tick()

    def tick(self) -> None:
        """Redraw the table."""
        if self._live.is_started:
            self._live.update(state_table(self._processes), refresh=True)

    def summary(self, words: Iterable[str]) -> None:
        """The table of addresses, once and to stay, above the one that lives."""
        title, *lines = plain_table(self._processes).splitlines()
        # As text: a table of rich would cut addresses to fit a narrow screen.
        self.console.print(Text(title, "bold"), soft_wrap=True)
        for process, line in zip(self._processes, lines, strict=True):
            state = process.status.state
            text = Text(line)
            text.stylize(_COLOURS.get(state, "dim"), len(line) - len(state))
            self.console.print(text, soft_wrap=True)
        for word in words:
            self.line(word)

    def close(self) -> None:
        """Take the live table away; what was printed stays."""
        self._live.stop()


def make_reporter() -> Reporter:
    """The one that suits standard output."""
    console = Console()
    return LiveReporter(console) if console.is_terminal else Reporter(console)


def describe_change(process: ManagedProcess) -> str | None:
    """One line for a change of state; None for those that interest nobody."""
    name, status = process.spec.name, process.status
    match status.state:
        case State.READY:
            return f"{name}: ready after {status.ready_after or 0:.1f} s"
        case State.UNREADY:
            return f"{name}: not ready"
        case State.HELD:
            return f"{name}: stopped on request"
        case State.BACKOFF if process.ever_ready or not process.hopeless.is_set():
            again = f"again in {status.retry_seconds:.1f} s"
            return f"{name}: died ({status.exit}), {again}: {status.last_error}"
        case _:
            return None


def plain_table(processes: Sequence[ManagedProcess]) -> str:
    """Service, URL, docs, health in aligned columns of any width."""
    rows = [("service", "URL", "docs", "health")]
    rows += [(p.spec.name, p.spec.url, p.spec.docs, str(p.status.state)) for p in processes]
    return "\n".join(aligned(rows))


def state_table(processes: Sequence[ManagedProcess]) -> Table:
    """State, uptime, restarts and the last error line of each process."""
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    for title in ("service", "state", "uptime", "restarts"):
        table.add_column(title, no_wrap=True)
    table.add_column("last error", no_wrap=True, overflow="ellipsis", ratio=1)
    for process in processes:
        status = process.status
        running = status.pid is not None and status.since is not None
        table.add_row(
            process.spec.name,
            coloured(status.state),
            age(time.monotonic() - (status.since or 0)) if running else "",
            str(status.restarts or ""),
            escape(status.last_error or ""),
        )
    return table


def coloured(state: State) -> str:
    """The state in its colour."""
    colour = _COLOURS.get(state, "dim")
    return f"[{colour}]{state}[/{colour}]"
