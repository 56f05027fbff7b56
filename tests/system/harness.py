"""The running platform as the fault tests see it: its public APIs, its processes, its databases."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from scripts.local.home import Home
from scripts.local.options import Options
from scripts.local.procs import end_with_parent
from scripts.local.slipway import Slipway
from scripts.topology import load
from tests.local.platform_handle import ROOT, Platform, alive, eventually

# Short enough that what a fault costs is seen in seconds; the mechanisms are those of production.
QUICK = {
    "SLIPWAY_RESTART_CAP_SECONDS": "0.2",
    "SLIPWAY_START_SECONDS": "120",
    "AUTH_ARGON2_MEMORY_KIB": "64",
    "AUTH_ARGON2_PASSES": "1",
    "ORDERS_PEER_TIMEOUT_SECONDS": "2",
    "ORDERS_BREAKER_RESET_SECONDS": "3",
    "ORDERS_SAGA_LEASE_SECONDS": "6",
    "ORDERS_SAGA_BACKOFF_CAP_SECONDS": "1",
    "ORDERS_OUTBOX_BACKOFF_CAP_SECONDS": "1",
    "TASKS_PEER_TIMEOUT_SECONDS": "2",
    "TASKS_BREAKER_RESET_SECONDS": "3",
    "TASKS_OUTBOX_BACKOFF_CAP_SECONDS": "1",
    "TASKS_DUE_SOON_POLL_SECONDS": "0.2",
}
OPEN_STATES = ("pending", "rejecting", "cancelling")
_CALL_SECONDS = 30.0
SETTLE_SECONDS = 90.0


@dataclass(frozen=True)
class Buyer:
    """A user with a token."""

    id: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a request of this user carries."""
        return {"Authorization": f"Bearer {self.token}"}


def _client() -> httpx2.Client:
    """A client that opens a connection for each request, so that no fault is met twice."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.Client(limits=limits, timeout=_CALL_SECONDS, trust_env=False)


@dataclass
class Shop:
    """One running platform. Each test brings its own buyers and items, so it may be shared."""

    platform: Platform
    _admin: Buyer | None = None
    _http: httpx2.Client = field(default_factory=_client)

    @classmethod
    def open(cls, home: Path, **env: str) -> Shop:
        """Start the platform on free ports and wait until it is ready."""
        platform = Platform(home, ("-m", "scripts.local"), {**QUICK, **env})
        home.mkdir()
        with (home / "output.log").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *platform.program, "up"],
                cwd=ROOT,
                env=platform.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # A killed test run leaves nothing behind.
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )
        platform.started.append(process)

        def ready() -> bool:
            assert process.poll() is None, (home / "output.log").read_text()
            return bool(platform.status()["phase"] == "ready")

        try:
            eventually(ready, 180)
        except BaseException:
            platform.end()
            raise
        return cls(platform)

    def close(self) -> None:
        """Stop everything."""
        for name in self.names:
            self.send(name, signal.SIGCONT)
        self.platform.end()
        self._http.close()

    # Addresses and processes.

    @property
    def names(self) -> list[str]:
        """Every process of the platform."""
        return [process["name"] for process in self.platform.status()["processes"]]

    def url(self, name: str = "gateway") -> str:
        """Where a process listens; without a name, the gateway."""
        return f"http://127.0.0.1:{self.platform.process(name)['port']}"

    def pid(self, name: str) -> int:
        """The pid of a running process."""
        return int(eventually(lambda: self.platform.process(name)["pid"]))

    def send(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a process; its pid."""
        pid = self.platform.process(name)["pid"] or 0
        if pid and alive(pid):
            os.kill(pid, number)
        return int(pid)

    def stop(self, name: str) -> None:
        """End a process; the runner does not start it again before `start`."""
        done = self.platform.run("stop", name)
        assert done.returncode == 0, done.stderr

    def start(self, name: str) -> None:
        """Start a stopped process; returns when it is ready."""
        done = self.platform.run("start", name, timeout=150)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def outage(self, name: str) -> Iterator[None]:
        """Stop a process for the time of the block."""
        self.stop(name)
        try:
            yield
        finally:
            self.start(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Freeze a process (SIGSTOP): it keeps its connections and answers nothing."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def restart(self, name: str, number: signal.Signals) -> None:
        """End a process by a signal; returns when the one that the runner starts next is ready."""
        old = self.pid(name)
        os.kill(old, number)
        eventually(lambda: self.platform.process(name)["pid"] not in {None, old}, SETTLE_SECONDS)
        self.wait_ready(name)

    def recover(self) -> None:
        """Undo every fault and wait until all processes are ready and answer."""
        for name in self.names:
            self.send(name, signal.SIGCONT)
            if self.platform.process(name)["state"] == "held":
                self.start(name)
        for name in self.names:
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Wait until the present process of a service says that it is ready."""

        def ready() -> bool:
            process = self.platform.process(name)
            if process["pid"] is None or not alive(process["pid"]):
                return False
            if name == "gateway":
                return bool(process["state"] == "ready")
            try:
                return self.call("GET", "/readyz", at=name).status_code == 200
            except httpx2.TransportError:
                return False

        eventually(ready, SETTLE_SECONDS)

    def service_environment(self, name: str) -> dict[str, str]:
        """The environment of a further process of a service, as the runner would make it."""
        options = Options(
            home=Home(self.platform.home),
            gateway_port=self.platform.process("gateway")["port"],
            port_base=0,
            database_url_template=self.platform.env.get("DATABASE_URL_TEMPLATE"),
            valkey_url=self.platform.env.get("SLIPWAY_VALKEY_URL"),
        )
        stack = Slipway(options)
        stack._service_ports.update(
            {each: self.platform.process(each)["port"] for each in stack._service_ports}
        )
        return {**stack.environment(name), **self.platform.environment()}

    @contextmanager
    def second(self, name: str, port: int) -> Iterator[Second]:
        """Run one more process of a service on `port`, beside the runner's."""
        env = self.service_environment(name)
        service = load()[name]
        env[f"{service.prefix}PORT"] = str(port)
        process = Second(
            service.module, port, env, self.platform.home / "logs" / f"{name}-{port}.log"
        )
        process.start()
        try:
            yield process
        finally:
            process.end()

    # Requests.

    def call(
        self, method: str, path: str, *, at: str = "gateway", who: Buyer | None = None, **more: Any
    ) -> httpx2.Response:
        """One request on a connection of its own."""
        headers = {**(who.headers if who else {}), **more.pop("headers", {})}
        return self._http.request(method, self.url(at) + path, headers=headers, **more)

    def get(self, url: str) -> httpx2.Response:
        """Read a URL that is not the platform's own."""
        return self._http.get(url)

    def order(
        self, who: Buyer, item: str, quantity: int = 1, key: str | None = None, **more: Any
    ) -> httpx2.Response:
        """Place an order of one line through the gateway."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4()), **more.pop("headers", {})}
        return self.call(
            "POST", "/v1/orders", who=who, json=lines(item, quantity), headers=headers, **more
        )

    def order_settled(self, who: Buyer, order_id: str, seconds: float = SETTLE_SECONDS) -> str:
        """Read an order until it is no longer pending; its status."""

        def status() -> str | None:
            answer = self.call("GET", f"/v1/orders/{order_id}", who=who)
            found = answer.json().get("status")
            return None if found == "pending" else found

        return str(eventually(status, seconds))

    def buyers(self, count: int) -> list[Buyer]:
        """New users, signed up and logged in.

        At auth itself: the gateway lets one address sign up five times in a second.
        """
        found = []
        for _ in range(count):
            email, password = f"{uuid.uuid4().hex}@example.org", secrets.token_urlsafe(18)
            body = {"email": email, "password": password}
            user = self.call("POST", "/v1/users", at="auth", json=body)
            assert user.status_code == 201, user.text
            found.append(Buyer(user.json()["id"], self._log_in(email, password)))
        return found

    @property
    def admin(self) -> Buyer:
        """An administrator, made by the command for it."""
        if self._admin is None:
            email, password = "admin@example.org", secrets.token_urlsafe(18)
            made = subprocess.run(
                [sys.executable, "-m", "scripts.local", "admin", email],
                cwd=ROOT,
                env=self.platform.environment(),
                input=f"{password}\n",
                capture_output=True,
                text=True,
                check=False,
            )
            assert made.returncode == 0, made.stderr
            self._admin = Buyer("admin", self._log_in(email, password))
        return self._admin

    def _log_in(self, email: str, password: str) -> str:
        form = {"grant_type": "password", "username": email, "password": password}
        answer = self.call("POST", "/v1/token", at="auth", data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def item(self, units: int) -> str:
        """Put a new item into the catalogue, with so many units in stock; its id."""
        name = f"thing-{uuid.uuid4().hex[:12]}"
        body = {
            "sku": name.upper(),
            "name": name,
            "category": "test",
            "price": {"amount": "12.50", "currency": "EUR"},
        }
        made = self.call("PUT", f"/v1/items/{name}", who=self.admin, json=body)
        assert made.status_code == 201, made.text
        stock = self.call("PUT", f"/v1/stock/{name}", who=self.admin, json={"on_hand": units})
        assert stock.status_code == 201, stock.text
        return name

    def stock(self, item: str) -> dict[str, Any]:
        """What inventory says of an item."""
        return dict(self.call("GET", f"/v1/stock/{item}", who=self.admin).json())

    def metric(self, service: str, name: str, /, **labels: str) -> float | None:
        """The value of one series of a service's `/metrics`; None when it has none."""
        text = self.call("GET", "/metrics", at=service).text
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)(?: #.*)?", line)
            if (
                found
                and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items()
            ):
                return float(found[2])
        return None

    # What the databases hold.

    def database(self, service: str) -> Path:
        """The file of a service's database, on SQLite."""
        return self.platform.home / "data" / f"{service}.db"

    def rows(self, service: str, query: str) -> list[tuple[Any, ...]]:
        """Read from the database of a service, beside its process."""
        template = self.platform.env.get("DATABASE_URL_TEMPLATE")
        if template:
            url = template.replace("{service}", service.replace("-", "_"))
            with psycopg.connect(url) as connection:
                return connection.execute(query.encode()).fetchall()
        path = self.database(service)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def orders_of(self, buyers: list[Buyer]) -> dict[str, tuple[str, str, int]]:
        """The stored orders of some buyers: id -> (state, item, quantity)."""
        owners = ", ".join(f"'{buyer.id}'" for buyer in buyers)
        found = {}
        for order_id, state, stored in self.rows(
            "orders", f"SELECT id, state, lines FROM orders WHERE owner IN ({owners})"
        ):
            [line] = json.loads(stored) if isinstance(stored, str) else stored
            found[order_id] = (state, line["item_id"], line["quantity"])
        return found

    def outbox(self) -> Counter[str]:
        """How many rows of the outbox of orders are pending, delivered and dead."""
        return Counter(
            dict(self.rows("orders", "SELECT state, count(*) FROM outbox GROUP BY state"))
        )

    def told(self, buyers: list[Buyer]) -> Counter[str]:
        """How often each order was told to its owner as confirmed."""
        owners = ", ".join(f"'{buyer.id}'" for buyer in buyers)
        query = (
            "SELECT data FROM notifications "
            f"WHERE kind = 'order.confirmed' AND recipient IN ({owners})"
        )
        rows = self.rows("notifications", query)
        data = [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in rows]
        return Counter(each["order_id"] for each in data)

    def settle_states(self, buyers: list[Buyer]) -> None:
        """Wait until the saga is through with the orders of `buyers`; their events may wait."""
        eventually(
            lambda: {state for state, _, _ in self.orders_of(buyers).values()}.isdisjoint(
                OPEN_STATES
            ),
            SETTLE_SECONDS,
        )

    def settle(self, buyers: list[Buyer]) -> Counter[str]:
        """Wait until nothing is left to do for orders of `buyers`; how many are in which state."""
        self.settle_states(buyers)
        eventually(lambda: not self.outbox()["pending"], SETTLE_SECONDS)
        return Counter(state for state, _, _ in self.orders_of(buyers).values())

    def assert_adds_up(self, buyers: list[Buyer], stocked: dict[str, int]) -> Counter[str]:
        """Hold everything that was stored against everything else; the states of the orders.

        Every order is confirmed or rejected (or cancelled), every confirmed one is told once and
        no other one is, what was sold is what is missing, nothing is pending or dead in the
        outbox, and inventory's own audit finds its ledger right.
        """
        states = self.settle(buyers)
        orders = self.orders_of(buyers)
        confirmed = {order_id for order_id, (state, _, _) in orders.items() if state == "confirmed"}
        told = self.told(buyers)
        assert set(told) >= confirmed, f"never told: {confirmed - set(told)}"
        cancelled = {order_id for order_id, (state, _, _) in orders.items() if state == "cancelled"}
        assert set(told) <= confirmed | cancelled, f"told wrongly: {set(told) - confirmed}"
        assert set(told.values()) <= {1}, f"told more than once: {told.most_common(3)}"
        for item, units in stocked.items():
            sold = sum(
                quantity
                for state, of, quantity in orders.values()
                if of == item and state == "confirmed"
            )
            stock = self.stock(item)
            assert (stock["on_hand"], stock["held"]) == (units - sold, 0), (sold, stock)
        outbox = self.outbox()
        assert (outbox["pending"], outbox["dead"]) == (0, 0), outbox
        audit = self.platform.run("run", "inventory", "audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        return states


@dataclass
class Second:
    """A process of a service that the tests themselves run; `module` is its import package."""

    module: str
    port: int
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chassis", "serve", self.module],
                env=self.env,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
            except httpx2.TransportError:
                return False

        eventually(ready, SETTLE_SECONDS)

    def ensure(self) -> None:
        """Start it unless it runs."""
        if self.process is None or self.process.poll() is not None:
            self.start()

    def end(self) -> int:
        """SIGTERM; wait; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def lines(item: str, quantity: int = 1) -> dict[str, Any]:
    """The body of an order of one line."""
    return {"lines": [{"item_id": item, "quantity": quantity}]}


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The problem in an answer, after checking that it is one of this status."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    body = dict(answer.json())
    assert body["status"] == status
    return body


def log_lines(path: Path, matches: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The JSON lines of a log that match."""
    entries = (json.loads(line) for line in whole_lines(path) if line.startswith("{"))
    return [entry for entry in entries if matches(entry)]


def whole_lines(path: Path) -> list[str]:
    """The lines of a log that is being written: Envoy writes blocks, which end within a line."""
    return path.read_bytes().rpartition(b"\n")[0].decode().splitlines()
