"""Waits for rollouts, with a bar for each on a screen and a line for each change in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from scripts.kube.cluster import Cluster
from scripts.kube.errors import ToolError
from scripts.kube.workloads import Rollout, rollouts, summary

SECONDS = 600.0
_POLL = 0.5


class RolloutFailed(Exception):  # noqa: N818  (a result, told by its name)
    """A release will not become ready. `release` names it, the text says why."""

    def __init__(self, release: str, text: str) -> None:
        super().__init__(text)
        self.release = release


class _Bars:
    """A bar for each workload."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._last = ""
        self.progress: Progress | None = None
        if console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(24),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
            )

    def context(self) -> AbstractContextManager[object]:
        return self.progress or nullcontext()

    def show(self, found: Sequence[Rollout]) -> None:
        if self.progress is None:
            if (line := summary(found)) != self._last:
                self._last = line
                self._console.print(f"  {line}", highlight=False, soft_wrap=True)
            return
        for each in found:
            note = f"{each.old} old" if each.old else ""
            task = self._tasks.get(each.name)
            if task is None:
                task = self._tasks[each.name] = self.progress.add_task(each.name, note=note)
            self.progress.update(task, completed=each.ready, total=each.desired or 1, note=note)


def wait(
    cluster: Cluster,
    namespace: str,
    releases: Sequence[str],
    console: Console,
    seconds: float = SECONDS,
) -> None:
    """Wait until every workload of `releases` runs its newest version and nothing else.

    Raises:
        RolloutFailed: one of them cannot, or does not within `seconds`.
    """
    wanted = set(releases)
    bars = _Bars(console)
    end = time.monotonic() + seconds
    with bars.context():
        while True:
            found = [each for each in rollouts(cluster, namespace) if each.release in wanted]
            bars.show(found)
            for each in found:
                if each.failed:
                    raise RolloutFailed(each.release, each.failed)
            late = [each for each in found if not each.done]
            if not late:
                break
            if time.monotonic() > end:
                raise RolloutFailed(late[0].release, f"not ready after {seconds:g} s")
            time.sleep(_POLL)
    missing = wanted - {each.release for each in found}
    if missing:
        raise ToolError(f"{', '.join(sorted(missing))}: no workload in namespace {namespace}", 1)
