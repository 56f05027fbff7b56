"""What the runner runs: processes, and what happens before they start and once they are ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scripts.local.options import Options

if TYPE_CHECKING:
    import httpx2

    from scripts.local.process import Spec


class Stack(ABC):
    """A platform to run. The runner knows no more of it than this.

    `forks` says that some of its processes are `forkable`.
    """

    forks = False

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    @abstractmethod
    def ports(self) -> Mapping[str, tuple[int, str]]:
        """Every port it will listen on: owner -> port, environment variable that moves it."""

    @abstractmethod
    async def prepare(self) -> Sequence[Spec]:
        """Do what must be done before anything starts, and say what to start.

        Raises:
            RunnerError: the platform cannot start; one line says why.
        """

    async def finish(self, client: httpx2.AsyncClient) -> None:  # noqa: B027 - nothing by default
        """Do what needs the running platform. It counts as ready after that."""

    def closing_words(self) -> Sequence[str]:
        """Lines to print below the table."""
        return ()
