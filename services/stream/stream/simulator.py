"""Sensors that do not exist: `python -m stream.simulator --sensors 5 --rate 10 --count 100`.

Sends readings of a slow wave with some noise, at a bounded rate, until `--count` are sent or it is
told to end; then it says how many were taken. The token (scope sensors:write) is read from
STREAM_SIMULATOR_TOKEN, so that it stands in no command line. An outage is waited out.

Exit codes: 0 done, 1 the service refuses, 2 bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

TOKEN = "STREAM_SIMULATOR_TOKEN"  # noqa: S105  (the name of a variable)
MAX_RATE = 10_000.0
_BATCH = 100
_TICK_SECONDS = 0.1
_PERIOD_SECONDS = 60.0
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class RefusedError(Exception):
    """The service does not take the readings; one line says why."""


@dataclass(frozen=True)
class Plan:
    """What to send: readings a second over all sensors; `count` 0 is without an end."""

    url: str
    sensors: int
    rate: float
    count: int


class Simulator:
    """Sends readings until it is stopped or done."""

    def __init__(self, plan: Plan, client: httpx2.AsyncClient, *, seed: int | None = None) -> None:
        self._plan = plan
        self._client = client
        self._random = random.Random(seed)  # noqa: S311  (noise)
        self._stop = asyncio.Event()
        self.sent = 0

    def stop(self) -> None:
        """End after the batch that is on its way."""
        self._stop.set()

    async def run(self) -> None:
        """Send.

        Raises:
            RefusedError: the service refuses.
        """
        loop = asyncio.get_running_loop()
        began, due = loop.time(), 0.0
        while not self._stop.is_set() and (not self._plan.count or self.sent < self._plan.count):
            # What is due by the clock, but no debt: after an outage the rate stays the rate.
            allowed = (loop.time() - began) * self._plan.rate
            if allowed - due > self._plan.rate:
                due = allowed - self._plan.rate
            number = min(int(allowed - due), _BATCH)
            if self._plan.count:
                number = min(number, self._plan.count - self.sent)
            if number:
                due += number
                await self._send(f"sim-{self._random.randrange(self._plan.sensors) + 1}", number)
            else:
                await self._wait(min(_TICK_SECONDS, 1 / self._plan.rate))

    async def _send(self, sensor: str, number: int) -> None:
        body = {"readings": [self._reading() for _ in range(number)]}
        pause = _TICK_SECONDS
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = await self._client.post(
                    f"{self._plan.url}/v1/sensors/{sensor}/readings", json=body
                )
                if answer.is_success:
                    self.sent += number
                    return
                if answer.status_code not in _TRY_AGAIN:
                    raise RefusedError(f"{sensor}: answered {answer.status_code}: {answer.text}")
            if await self._wait(pause * self._random.random()):
                return
            pause = min(pause * 2, 5.0)

    async def _wait(self, seconds: float) -> bool:
        """Wait; say whether it was told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    def _reading(self) -> dict[str, Any]:
        now = datetime.now(UTC)
        wave = math.sin(2 * math.pi * now.timestamp() / _PERIOD_SECONDS)
        value = round(20 + 5 * wave + self._random.gauss(0, 0.2), 2)
        return {"value": value, "unit": "Cel", "at": now.isoformat().replace("+00:00", "Z")}


async def _simulate(plan: Plan, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=10, trust_env=False) as client:
        simulator = Simulator(plan, client)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, simulator.stop)
        try:
            await simulator.run()
        except RefusedError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{simulator.sent} readings sent")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stream.simulator", description=__doc__)
    parser.add_argument("--url", default="http://localhost:8080", help="the gateway")
    parser.add_argument("--sensors", type=int, default=5)
    parser.add_argument("--rate", type=float, default=10.0, help="readings a second, all together")
    parser.add_argument("--count", type=int, default=0, help="0: until Ctrl-C")
    options = parser.parse_args(arguments)
    if options.sensors < 1 or options.count < 0 or not 0 < options.rate <= MAX_RATE:
        parser.error(f"--sensors from 1, --count from 0, --rate above 0 up to {MAX_RATE:.0f}")
    token = os.environ.get(TOKEN, "")
    if not token:
        parser.error(f"{TOKEN} is not set; give it an access token with the scope sensors:write")
    plan = Plan(options.url.rstrip("/"), options.sensors, options.rate, options.count)
    return asyncio.run(_simulate(plan, token))


if __name__ == "__main__":
    raise SystemExit(main())
