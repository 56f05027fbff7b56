"""The reference client: listens to topics, comes back after every interruption, misses nothing.

    async with StreamClient("ws://localhost:8080/v1/stream", token) as client:
        async for event in client.listen("orders", "sensors/*"):
            ...

One subscription for all topics, so that the last event id holds for all of them. Events come in the
order of their ids; one that comes again after an interruption is left out. Between two tries it
waits a random time, which doubles; a server that says goodbye says itself how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from stream.credentials import SUBPROTOCOL
from stream.positions import Position

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
OPEN_SECONDS = 10.0
_REFUSED = frozenset({400, 401, 403, 422})
# Not 4401: the token came to its end, and the next one opens the stream again. One that is no good
# is refused as a request, with 401.
_FINAL = frozenset({1008, 1009})

Token = Callable[[], Awaitable[str]]


class RefusedError(Exception):
    """The server will not have this client: trying again would not help."""


class StreamClient:
    """One listener. `token` gives an access token each time the stream is opened.

    Attributes:
        last_event_id: how far it is: the last event that was given out, or later, where the server
            said so to a quiet stream; set it to go on where another ended.
        notices: called with every message that is no event, such as `gap` and `dropped`.
        interruptions: how often the stream was opened anew.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        last_event_id: str | None = None,
        notices: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._socket: ClientConnection | None = None
        self._retry: float | None = None
        self.last_event_id = last_event_id
        self.notices = notices or (lambda _: None)
        self.interruptions = 0

    async def __aenter__(self) -> Self:
        """Return the client; it opens the stream when it listens."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the stream."""
        if self._socket is not None:
            await self._socket.close()

    async def listen(self, *topics: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of `topics` from now, or from `last_event_id`, on.

        Raises:
            RefusedError: the token or the topics are no good.
        """
        pause = FIRST_PAUSE
        while True:
            with contextlib.suppress(OSError, TimeoutError, InvalidHandshake, ConnectionClosed):
                async with contextlib.aclosing(self._stream(topics)) as events:
                    async for event in events:
                        pause = FIRST_PAUSE
                        yield event
            self.interruptions += 1
            wait = random.uniform(0, pause) if self._retry is None else self._retry  # noqa: S311
            pause, self._retry = min(pause * 2, LONGEST_PAUSE), None
            await asyncio.sleep(wait)

    async def _stream(self, topics: tuple[str, ...]) -> AsyncGenerator[dict[str, Any], None]:
        token = await self._token()
        try:
            async with connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {token}"},
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
                open_timeout=OPEN_SECONDS,
                compression=None,
                proxy=None,
            ) as socket:
                self._socket = socket
                await socket.send(json.dumps(self._subscription(topics)))
                async for raw in socket:
                    event = self._take(json.loads(raw))
                    if event is not None:
                        yield event
        except InvalidStatus as error:
            if error.response.status_code in _REFUSED:
                raise RefusedError(f"answered {error.response.status_code}") from error
            raise
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code in _FINAL:
                raise RefusedError(closed.rcvd.reason) from closed
            raise

    def _subscription(self, topics: tuple[str, ...]) -> dict[str, Any]:
        message: dict[str, Any] = {"type": "subscribe", "topics": list(topics)}
        if self.last_event_id is not None:
            message["last_event_id"] = self.last_event_id
        return message

    def _take(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the message if it is a new event; note what else it says."""
        kind = message["type"]
        if kind == "event":
            last = self.last_event_id
            if last is not None and Position.parse(message["id"]) <= Position.parse(last):
                return None
            self.last_event_id = message["id"]
            return message
        if kind == "position" or (kind == "subscribed" and self.last_event_id is None):
            self.last_event_id = message["last_event_id"]
        elif kind == "goodbye":
            self._retry = message["retry_ms"] / 1000
        elif kind == "error":
            raise RefusedError(f"{message['code']}: {message['detail']}")
        self.notices(message)
        return None
