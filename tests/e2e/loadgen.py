"""Load from inside the cluster: buyers who read and order, and know what they were promised.

Runs in a pod, from a service's image (Python, aiohttp). Prints one JSON line a second and, when
`/tmp/stop` appears or the time is over, a last one with everything: requests, failures, and what
the orders of each buyer became. Without RETRY each request is sent once, and anything but success
is a failure. With RETRY an order is sent again with its key until it is answered.

Environment: URL, SECONDS, READERS, WRITERS, FRESH (readers that connect anew for each request),
RATE (requests a second in all), ITEM, RETRY.
"""

import asyncio
import json
import os
import random
import time
import uuid
from collections import Counter

import aiohttp

URL = os.environ["URL"]
SECONDS = float(os.environ.get("SECONDS", "600"))
RATE = float(os.environ.get("RATE", "200"))
ITEM = os.environ["ITEM"]
RETRY = bool(os.environ.get("RETRY"))
STOP = "/tmp/stop"
PASSWORD = "paper-lamp-by-the-window"
FINAL = {"confirmed", "rejected", "cancelled"}
SHOWN = 10
GIVE_UP_SECONDS = 90


class Load:
    """What is sent, and what came of it."""

    def __init__(self) -> None:
        self.began = time.time()
        self.seen = Counter()
        self.failures = []
        self.slowest = 0.0
        self.orders = {}
        self.stopped = asyncio.Event()
        self.due = time.monotonic()

    async def turn(self) -> bool:
        """Wait for the next request's moment; False when it is over."""
        self.due = max(self.due + 1 / RATE, time.monotonic() - 1)
        await asyncio.sleep(max(0.0, self.due - time.monotonic()))
        return not self.stopped.is_set()

    async def send(self, session, method, path, expected, **more):
        """Send one request; return (status, JSON), or None when it failed."""
        begun = time.monotonic()
        try:
            async with session.request(method, URL + path, **more) as answer:
                body = await answer.read()
                status = answer.status
                problem = "" if status in expected else body.decode(errors="replace")[:160]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, problem = type(error).__name__, repr(error)
        took = time.monotonic() - begun
        self.slowest = max(self.slowest, took)
        self.seen[f"{method} {status}"] += 1
        if status not in expected:
            moment = round(time.time() - self.began, 2)
            self.failures.append(
                {"at": moment, "request": f"{method} {path}", "status": status, "why": problem,
                 "seconds": round(took, 3)}
            )  # fmt: skip
            return None
        return status, json.loads(body)

    async def reader(self, session) -> None:
        """Read items on a kept connection."""
        while await self.turn():
            await self.send(session, "GET", f"/v1/items/{ITEM}", {200})

    async def fresh_reader(self) -> None:
        """Read items, each time on a new connection."""
        while await self.turn():
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
                await self.send(session, "GET", "/v1/items", {200})

    async def writer(self, session, buyer) -> None:
        """Place orders; keep what was promised."""
        while await self.turn():
            key = str(uuid.uuid4())
            order = {"lines": [{"item_id": ITEM, "quantity": 1}]}
            answer, end = None, time.monotonic() + GIVE_UP_SECONDS
            while answer is None:
                answer = await self.send(
                    session, "POST", "/v1/orders", {201, 202},
                    json=order, headers={**buyer["headers"], "Idempotency-Key": key},
                )  # fmt: skip
                if answer is None and (not RETRY or time.monotonic() > end):
                    break
                if answer is None:
                    await asyncio.sleep(0.3)
            if answer is not None:
                buyer["accepted"].append(answer[1]["id"])
            else:
                buyer["unknown"] += 1

    async def sign_up(self, session):
        """Return a new buyer."""
        email = f"e2e-{uuid.uuid4().hex[:12]}@example.org"
        account = {"email": email, "password": PASSWORD}
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        async with session.post(f"{URL}/v1/users", json=account) as answer:
            answer.raise_for_status()
        buyer = {"accepted": [], "unknown": 0, "form": form, "headers": {}}
        await self.log_in(session, buyer)
        return buyer

    async def log_in(self, session, buyer) -> None:
        """Give the buyer a token."""
        async with session.post(f"{URL}/v1/token", data=buyer["form"]) as answer:
            answer.raise_for_status()
            token = (await answer.json())["access_token"]
        buyer["headers"]["Authorization"] = f"Bearer {token}"

    async def log_in_again(self, session, buyers) -> None:
        """Renew the tokens long before they end."""
        while True:
            await asyncio.sleep(240)
            for buyer in buyers:
                await self.log_in(session, buyer)

    async def audit(self, session, buyer):
        """Compare a buyer's orders with what was accepted, once none is pending."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            listed, cursor = {}, ""
            while True:
                path = "/v1/orders?limit=100" + (f"&cursor={cursor}" if cursor else "")
                async with session.get(URL + path, headers=buyer["headers"]) as answer:
                    answer.raise_for_status()
                    page = await answer.json()
                listed.update({order["id"]: order["status"] for order in page["items"]})
                cursor = page.get("next_cursor")
                if not cursor:
                    break
            if set(listed.values()) <= FINAL or time.monotonic() > end:
                break
            await asyncio.sleep(1)
        accepted = buyer["accepted"]
        return {
            "accepted": len(accepted),
            "unknown": buyer["unknown"],
            "twice": len(accepted) - len(set(accepted)),
            "lost": len(set(accepted) - set(listed)),
            "unasked": len(set(listed) - set(accepted)),
            "states": Counter(listed.values()),
        }

    async def told(self, session, buyer) -> Counter:
        """Count the notifications of a buyer, by order."""
        found, cursor = Counter(), ""
        while True:
            path = "/v1/notifications?limit=100" + (f"&cursor={cursor}" if cursor else "")
            async with session.get(URL + path, headers=buyer["headers"]) as answer:
                answer.raise_for_status()
                page = await answer.json()
            found.update(each["data"].get("order_id") for each in page["items"])
            cursor = page.get("next_cursor")
            if not cursor:
                return found


async def report(load: Load) -> None:
    """Say each second how it goes; end it when told."""
    end = time.monotonic() + SECONDS
    while not os.path.exists(STOP) and time.monotonic() < end:  # noqa: ASYNC240, PTH110  (once a second)
        await asyncio.sleep(1)
        line = {"requests": sum(load.seen.values()), "failed": len(load.failures)}
        print(json.dumps(line), flush=True)
    load.stopped.set()


async def main() -> None:
    """Run the load, then the audit."""
    load = Load()
    timeout = aiohttp.ClientTimeout(30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        writers = int(os.environ.get("WRITERS", "4"))
        buyers = [await load.sign_up(session) for _ in range(writers)]
        tasks = [load.writer(session, buyer) for buyer in buyers]
        tasks += [load.reader(session) for _ in range(int(os.environ.get("READERS", "8")))]
        tasks += [load.fresh_reader() for _ in range(int(os.environ.get("FRESH", "2")))]
        random.shuffle(tasks)
        again = asyncio.create_task(load.log_in_again(session, buyers))
        await asyncio.gather(report(load), *tasks)
        again.cancel()
        seconds = time.time() - load.began
        for buyer in buyers:
            await load.log_in(session, buyer)
        audits = [await load.audit(session, buyer) for buyer in buyers]
        await asyncio.sleep(5)  # the last notifications are on their way
        repeated = untold = 0
        for buyer in buyers:
            told = await load.told(session, buyer)
            repeated += sum(1 for number in told.values() if number > 1)
            untold += len(set(buyer["accepted"]) - set(told))
    print(
        json.dumps(
            {
                "done": True,
                "seconds": round(seconds, 1),
                "requests": sum(load.seen.values()),
                "seen": load.seen,
                "failed": len(load.failures),
                "failures": load.failures[:SHOWN],
                "slowest": round(load.slowest, 3),
                "told_twice": repeated,
                "untold": untold,
                **{
                    name: sum(audit[name] for audit in audits)
                    for name in ("accepted", "unknown", "twice", "lost", "unasked")
                },
                "states": sum((audit["states"] for audit in audits), Counter()),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
