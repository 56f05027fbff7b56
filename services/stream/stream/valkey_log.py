"""The log in Valkey: one stream for each kind of topic, read by every process.

Positions are given out by one script, which Valkey runs alone: milliseconds of its clock and a
number, always greater than the one before, over all kinds. So one last event id is enough to
resume every topic of a client, on any replica. The script also drops an event whose key is known,
and cuts the streams to their length.

Nothing here waits for Valkey while clients wait: entries come by one reader for each process, and
while Valkey is away the hub says so and the reader goes on from its last position when it is back.
If that position is gone (trimmed meanwhile, or the data were lost), clients are told of a gap. A
reader that is so slow that the log is cut before it came by begins anew in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import ResponseError, ValkeyError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from chassis.clock import Clock
from chassis.logs import get_logger
from stream.entries import Draft, Entry, fields
from stream.hub import Hub
from stream.log import LogUnavailableError, Stored
from stream.positions import ORIGIN, Position
from stream.topics import KINDS, Kind, kind_of

BLOCK_MILLISECONDS = 1000
READ_COUNT = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

# One hash slot, so that a cluster runs the script too.
_PREFIX = "{slipway-stream}:"
_CLOCK = f"{_PREFIX}clock"
_STREAMS: dict[Kind, str] = {kind: f"{_PREFIX}log:{kind}" for kind in KINDS}
_KINDS_OF: dict[str, Kind] = {stream: kind for kind, stream in _STREAMS.items()}

# KEYS: the clock, the streams in the order of KINDS, then the deduplication keys.
# ARGV: length of a stream, seconds a key is known, then five for each event:
#       number of its stream, topic, message, traceparent, number of its key in KEYS or 0.
_APPEND = """
local last = redis.call('HMGET', KEYS[1], 'ms', 'number', 'born')
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local number = 0
if last[1] and tonumber(last[1]) >= ms then
  ms = tonumber(last[1])
  number = tonumber(last[2])
else
  number = -1
end
local function step()
  number = number + 1
  return string.format('%.0f-%.0f', ms, number)
end
local born = last[3]
if not born then
  born = step()
  redis.call('HSET', KEYS[1], 'born', born)
end
local stored = 0
for at = 3, #ARGV, 5 do
  local key = tonumber(ARGV[at + 4])
  if key == 0 or redis.call('SET', KEYS[key], '1', 'NX', 'EX', ARGV[2]) then
    redis.call('XADD', KEYS[1 + ARGV[at]], 'MAXLEN', '~', ARGV[1], step(),
      't', ARGV[at + 1], 'm', ARGV[at + 2], 'p', ARGV[at + 3])
    stored = stored + 1
  end
end
if number < 0 then number = 0 end
local whole = string.format('%.0f', ms)
redis.call('HSET', KEYS[1], 'ms', whole, 'number', number)
return {born, whole .. '-' .. number, stored}
"""

_AWAY = (ValkeyConnectionError, ValkeyTimeoutError, OSError)


class _OvertakenError(Exception):
    """The log was cut beyond what this reader has read."""


class ValkeyLog:
    """See the module. `url` names the server and the database; times are in seconds."""

    def __init__(
        self,
        url: str,
        hub: Hub,
        clock: Clock,
        *,
        length: int,
        dedupe_seconds: int,
        timeout: float,
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._length = length
        self._dedupe_seconds = dedupe_seconds
        self._log = get_logger("stream.log")
        url = url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
        self._client = _client(url, timeout)
        # A read that waits for news takes longer than any other call.
        self._reading = _client(url, timeout + BLOCK_MILLISECONDS / 1000)
        self._script = self._client.register_script(_APPEND)
        self._born: Position | None = None
        self._read: dict[Kind, Position] = dict.fromkeys(KINDS, ORIGIN)

    async def append(self, drafts: Sequence[Draft]) -> Stored:
        """Store events, all or none."""
        _, _, stored = await self._run_script(drafts)
        return Stored(stored, len(drafts) - stored)

    async def keep(self, name: str, value: str, seconds: int) -> None:
        """Keep a value for one `take`, on any replica."""
        try:
            await self._client.set(f"{_PREFIX}kept:{name}", value, ex=seconds)
        except ValkeyError as error:
            raise LogUnavailableError(str(error)) from error

    async def take(self, name: str) -> str | None:
        """Return a value that was kept, once over all replicas."""
        try:
            value: str | None = await self._client.getdel(f"{_PREFIX}kept:{name}")
        except ValkeyError as error:
            raise LogUnavailableError(str(error)) from error
        return value

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._reading.aclose()

    async def run(self) -> None:
        """Read until cancelled; go on after each outage."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._catch_up()
                self._log.info("log.live", head=str(self._hub.head))
                pause = _FIRST_PAUSE
                while True:
                    await self._read_next()
            except _OvertakenError:
                continue
            except (LogUnavailableError, *_AWAY) as error:
                self._away(error)
            except ResponseError as error:  # loading its data, or out of memory
                self._away(error)
            await self._clock.sleep(random.uniform(pause / 2, pause))  # noqa: S311  (no secret)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _away(self, error: Exception) -> None:
        if not self._hub.degraded:
            self._log.warning("log.away", error=type(error).__name__)
        self._hub.degrade()

    async def _run_script(self, drafts: Iterable[Draft]) -> tuple[Position, Position, int]:
        """Append; return when the log began, its last position, and how many were stored."""
        keys = [_CLOCK, *_STREAMS.values()]
        arguments: list[str | int] = [self._length, self._dedupe_seconds]
        for draft in drafts:
            number = 0
            if draft.key:
                keys.append(f"{_PREFIX}seen:{draft.key}")
                number = len(keys)
            stored = fields(draft)
            stream = KINDS.index(kind_of(draft.topic)) + 1
            arguments += [stream, stored["t"], stored["m"], stored["p"], number]
        try:
            born, last, count = await self._script(keys=keys, args=arguments)
        except ValkeyError as error:
            raise LogUnavailableError(str(error)) from error
        return Position.parse(born), Position.parse(last), int(count)

    # Reading.

    async def _catch_up(self) -> None:
        """Load what the log holds, or make sure that reading goes on where it stopped."""
        born, last, _ = await self._run_script(())
        same = born == self._born
        for kind in KINDS:
            if not (same and await self._continues(kind)):
                await self._load(kind, born)
        self._born = born
        # Nothing after `last` was there when the streams were looked at, so `last` is no lie: what
        # is between the loaded entries and `last` is read next, before anybody is told of it.
        while await self._read_next(block=None):
            pass
        self._hub.go_live(last)

    async def _continues(self, kind: Kind) -> bool:
        """Say whether nothing was lost of `kind` since it was read last."""
        stream, read = _STREAMS[kind], self._read[kind]
        if read == ORIGIN:  # there was nothing, and nothing may have been cut since
            return await self._cut(stream) is False
        return bool(await self._client.xrange(stream, str(read), str(read)))

    async def _load(self, kind: Kind, born: Position) -> None:
        stream = _STREAMS[kind]
        known = self._born is not None
        rows: list[Any] = await self._client.xrevrange(stream, count=self._length)
        entries = [_entry(position, values) for position, values in reversed(rows)]
        floor = born
        if entries and (len(entries) == self._length or await self._cut(stream)):
            floor = entries[0].position
        self._hub.load(kind, entries, floor)
        self._read[kind] = entries[-1].position if entries else ORIGIN
        if known:
            self._log.warning("log.gap", kind=kind)
            self._hub.lost(kind)

    async def _cut(self, stream: str) -> bool:
        """Say whether entries were ever taken off the stream."""
        try:
            info: Mapping[str, Any] = await self._client.xinfo_stream(stream)
        except ResponseError:  # no such key
            return False
        return bool(info["entries-added"] != info["length"])

    async def _read_next(self, block: int | None = BLOCK_MILLISECONDS) -> bool:
        """Read what is new and publish it; False if there was nothing.

        Raises:
            _OvertakenError: what came first is gone already.
        """
        streams = {_STREAMS[kind]: str(position) for kind, position in self._read.items()}
        found: list[Any] = await self._reading.xread(streams, count=READ_COUNT, block=block)
        if not found:
            return False
        # A stream is cut only before the newest entries that it keeps: fewer than it keeps, in one
        # answer, are whole.
        least = min(READ_COUNT, self._length)
        for kind in [_KINDS_OF[stream] for stream, rows in found if len(rows) >= least]:
            if not await self._continues(kind):
                raise _OvertakenError
        # A stream that gave as much as it may has more: what the others hold beyond its last entry
        # waits for the next read, so that entries leave in the order of their positions.
        full = [Position.parse(rows[-1][0]) for _, rows in found if len(rows) >= READ_COUNT]
        end = min(full) if full else None
        entries = [
            entry
            for _, rows in found
            for entry in (_entry(position, values) for position, values in rows)
            if end is None or entry.position <= end
        ]
        entries.sort(key=lambda entry: entry.position)
        for entry in entries:
            self._read[entry.kind] = entry.position
        await self._hub.publish(entries)
        return True


def _client(url: str, timeout: float) -> Valkey:
    client: Valkey = Valkey.from_url(
        url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout
    )
    return client


def _entry(position: str, values: Mapping[str, str]) -> Entry:
    return Entry(Position.parse(position), values["t"], values["m"], values.get("p", ""))
