"""Ways for a commit to wake tasks of the same process. Other processes have to look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Signal:
    """Wakes one waiting task of this process; set before the wait, it is not lost."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, or let the next wait pass at once."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until set, at most `seconds`; tell which it was, and start over."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        was_set = self._event.is_set()
        if was_set:
            self._event = anyio.Event()
        return was_set


class Announcements:
    """Wakes the tasks of this process that wait for the same key."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[anyio.Event, int]] = {}

    @contextmanager
    def expect(self, key: str) -> Iterator[anyio.Event]:
        """Give the event that the next `announce(key)` sets; begin before looking, to miss none."""
        event, waiting = self._events.get(key, (anyio.Event(), 0))
        self._events[key] = (event, waiting + 1)
        try:
            yield event
        finally:
            current, waiting = self._events.get(key, (event, 0))
            if current is event and waiting > 1:
                self._events[key] = (event, waiting - 1)
            elif current is event:
                self._events.pop(key, None)

    def announce(self, key: str) -> None:
        """Wake who expects `key`; later ones wait for the next announcement."""
        event, _ = self._events.pop(key, (None, 0))
        if event is not None:
            event.set()
