"""Where a process stands: starting, warm, draining. Local state only; no peer is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

STARTING = "starting"


@dataclass
class Lifecycle:
    """The state behind the probes of one process."""

    started: bool = False
    """The resources are open and the background loops run."""

    waiting: str | None = STARTING
    """Why the process is not warm yet; None once it is."""

    failed: Exception | None = None
    """What ended the start; the server ends the process over it."""

    draining: bool = False
    """The process was told to end; it finishes what it has and takes nothing new."""

    streams: int = 0
    """Open WebSockets and endless answers that the service itself ends once it is draining."""

    dead_workers: set[str] = field(default_factory=set)
    """Background loops that stand still after a failure."""

    def begin(self) -> None:
        """Start anew, before the lifespan opens anything."""
        self.started, self.waiting, self.draining = False, STARTING, False
        self.failed = None

    @property
    def warm(self) -> bool:
        """True once the process may serve."""
        return self.started and self.waiting is None

    @property
    def obstacle(self) -> str | None:
        """Why the process is not ready, or None when it is."""
        if self.draining:
            return "draining"
        if not self.warm:
            return self.waiting or STARTING
        if self.dead_workers:
            return "workers down: " + ", ".join(sorted(self.dead_workers))
        return None
