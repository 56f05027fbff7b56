"""What the benchmark needs around its servers: an Envoy with the tree's gateway, a platform.

The gateway's rate limits are off here: they would be what is measured.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts import gateway, topology

ROOT = Path(__file__).resolve().parents[2]
ITEM = "stoneware-mug"
PASSWORD = "paper-lamp-by-the-window"  # of accounts that end with the benchmark
_READY_SECONDS = 60.0


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def envoy(
    addresses: Mapping[str, str], home: Path, issuer: str = "http://localhost"
) -> Iterator[tuple[int, int]]:
    """Run the gateway in front of `addresses` (service to host:port); yield its port and pid."""
    ports = {"http": free_port(), "admin": free_port(), "status": free_port()}
    tree = topology.load()
    known = {name: f"127.0.0.1:{free_port()}" for name in tree.services}
    config = home / f"envoy-{ports['http']}.yaml"
    config.write_text(
        gateway.render(
            tree,
            addresses={**known, **addresses},
            ports=ports,
            values={"rateLimits": {"enabled": False}, "jwt": {"issuer": issuer}},
        )
    )
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
    with (home / "envoy.log").open("ab") as log:
        process = subprocess.Popen(
            gateway.command(program, config, concurrency=1), stdout=log, stderr=log
        )
    try:
        _wait(f"http://127.0.0.1:{ports['status']}/ready")
        yield ports["http"], process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: nothing answered at {url} within {_READY_SECONDS:g} s")


@contextmanager
def platform(home: Path) -> Iterator[dict[str, str]]:
    """Start the whole platform on free ports; yield service name to host:port."""
    environment = {
        **os.environ,
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT_BASE": "0",
        "SLIPWAY_GATEWAY_PORT": "0",
    }
    command = [sys.executable, "-m", "scripts.local"]

    def run(*words: str, given: str | None = None) -> None:
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=environment, input=given,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(words)}: {done.stderr.strip() or done.stdout}")

    try:
        run("up", "--detach")
        run("admin", "bench-admin@example.org", given=PASSWORD + "\n")
        status = json.loads((home / "run" / "status.json").read_text())
        yield {
            process["name"]: f"127.0.0.1:{urllib.parse.urlsplit(process['url']).port}"
            for process in status["processes"]
        }
    finally:
        run("down")


def call(
    url: str, body: bytes, kind: str, method: str = "POST", token: str | None = None
) -> dict[str, Any]:
    """Send `body` and return the JSON of the answer."""
    headers = {"content-type": kind}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise SystemExit(f"bench: {url}: {error.code} {error.read()[:300]!r}") from None


def log_in(auth: str, email: str) -> str:
    """Return an access token of an account."""
    form = {"grant_type": "password", "username": email, "password": PASSWORD}
    answer = call(
        f"http://{auth}/v1/token",
        urllib.parse.urlencode(form).encode(),
        "application/x-www-form-urlencoded",
    )
    return str(answer["access_token"])


def buyer(addresses: Mapping[str, str]) -> tuple[str, str]:
    """Fill the shelf and sign a buyer up; return the token and the body of an order."""
    auth = addresses["auth"]
    admin = log_in(auth, "bench-admin@example.org")
    call(
        f"http://{addresses['inventory']}/v1/stock/{ITEM}",
        b'{"on_hand": 1000000}',
        "application/json",
        "PUT",
        admin,
    )
    email = f"bench-{uuid.uuid4().hex[:12]}@example.org"
    account = json.dumps({"email": email, "password": PASSWORD}).encode()
    call(f"http://{auth}/v1/users", account, "application/json")
    order = json.dumps({"lines": [{"item_id": ITEM, "quantity": 1}]})
    return log_in(auth, email), order
