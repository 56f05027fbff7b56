"""`make bench`: what the chassis costs, against bare FastAPI and the stack that is usually used.

Every server stays resident; rounds are short and interleaved, so that the noise of the machine
falls on all alike, and each round gives one paired ratio. Trust the CPU time per request (from the
kernel's account of the server process) more than the requests per second. It asserts nothing.

    python tests/load/bench.py [--rounds 15] [--seconds 1] [--connections 32]
                               [--gateway http://127.0.0.1:8080/v1/items/ID]
                               [--orders http://127.0.0.1:8080/v1/orders --token JWT --order JSON]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.load import stage

HERE = Path(__file__).parent
PATH = "/v1/items/42"


@dataclass
class Target:
    """One server under load and what was measured of it."""

    name: str
    host: str
    port: int
    path: str = PATH
    pids: list[int] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    errors: int = 0


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that these processes have used, all threads, in seconds."""
    total = 0.0
    for pid in pids:
        # utime and stime, fields 14 and 15; the name in field 2 may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def start(name: str, logs: Path, environment: dict[str, str]) -> tuple[subprocess.Popen, int]:
    """Start one of the targets; return the process and its port."""
    with (logs / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "targets.py"), name],
            stdout=output,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
    assert process.stderr is not None
    line = process.stderr.readline()
    if not line.strip().isdigit():
        raise SystemExit(f"bench: {name} did not start: {line}{process.stderr.read()}")
    return process, int(line)


def load(target: Target, seconds: float, connections: int) -> dict:
    """Load `target` once and return the client's figures."""
    if shutil.which("wrk"):
        return _wrk(target, seconds, connections)
    result = subprocess.run(
        [
            sys.executable, str(HERE / "client.py"), target.host, str(target.port), target.path,
            "--seconds", str(seconds), "--connections", str(connections),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(result.stdout)


def orders(url: str, token: str, order: str, seconds: float) -> str:
    """Place orders by 50 clients at once; return the line that says how long each took."""
    parts = urlsplit(url)
    result = subprocess.run(
        [
            sys.executable, str(HERE / "client.py"), parts.hostname or "127.0.0.1",
            str(parts.port or 80), parts.path, "--seconds", str(seconds), "--connections", "50",
            "--method", "POST", "--header", f"authorization: Bearer {token}",
            "--header", "content-type: application/json", "--body", order,
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(result.stdout)
    return (
        f"POST {parts.path} by 50 clients: {figures['requests'] / figures['seconds']:.0f}/s,"
        f" median {figures['p50_ms']:.1f} ms, 99th percentile {figures['p99_ms']:.1f} ms,"
        f" {figures['errors']} errors"
    )


def _wrk(target: Target, seconds: float, connections: int) -> dict:
    script = HERE / "report.lua"
    result = subprocess.run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script),
            f"http://{target.host}:{target.port}{target.path}",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(result.stdout.splitlines()[-1])


def measure(target: Target, seconds: float, connections: int) -> None:
    """Run one round on `target`."""
    before = cpu_seconds(target.pids)
    figures = load(target, seconds, connections)
    used = cpu_seconds(target.pids) - before
    count = max(figures["requests"], 1)
    target.rate.append(figures["requests"] / figures["seconds"])
    target.cpu.append(used / count * 1e6)
    target.p50.append(figures["p50_ms"])
    target.p99.append(figures["p99_ms"])
    target.errors += figures["errors"]


def paired(values: list[float], base: list[float], *, inverse: bool = False) -> float:
    """Return the median of the per-round ratios of `values` to `base`."""
    pairs = zip(values, base, strict=True)
    return statistics.median((b / v if inverse else v / b) for v, b in pairs if v and b)


def report(targets: list[Target]) -> str:
    """Return the table."""
    base = targets[0]
    titles = ("req/s", "CPU us/req", "p50 ms", "p99 ms", "errors", "req/s vs bare", "CPU kept")
    lines = [f"{'server':<9}" + "".join(f"{title:>14}" for title in titles)]
    for target in targets:
        measured = any(target.cpu)
        cells = (
            f"{statistics.median(target.rate):.0f}",
            f"{statistics.median(target.cpu):.1f}" if measured else "-",
            f"{statistics.median(target.p50):.2f}",
            f"{statistics.median(target.p99):.2f}",
            str(target.errors),
            f"{paired(target.rate, base.rate):.2f}",
            f"{paired(target.cpu, base.cpu, inverse=True):.2f}" if measured else "-",
        )
        lines.append(f"{target.name:<9}" + "".join(f"{cell:>14}" for cell in cells))
    named = {target.name: target for target in targets}
    if "chassis" in named and "unseen" in named:
        seen, unseen = named["chassis"], named["unseen"]
        lines.append(
            "metrics, logs and traces cost the chassis"
            f" {(paired(seen.cpu, unseen.cpu) - 1) * 100:.1f} % of CPU a request"
        )
    if "chassis" in named and "typical" in named:
        chassis, typical = named["chassis"], named["typical"]
        lines.append(
            f"chassis against typical: {paired(chassis.rate, typical.rate):.2f} x the requests/s,"
            f" {paired(chassis.cpu, typical.cpu, inverse=True):.2f} x the requests per CPU second"
        )
    return "\n".join(lines)


def stage_targets(names: list[str], logs: Path, processes: list[subprocess.Popen]) -> list[Target]:
    """Start the servers of `names` and return them; the first is the base of the ratios."""
    sink, port = start("sink", logs, {})
    processes.append(sink)
    environment = {"BENCH_OTLP": f"http://127.0.0.1:{port}"}
    targets = []
    for name in names:
        process, port = start(name, logs, environment)
        processes.append(process)
        targets.append(Target(name, "127.0.0.1", port, pids=[process.pid]))
    return targets


def order_times(home: Path, stack: ExitStack) -> str:
    """Start the platform, place orders through a gateway, and return the line of figures."""
    addresses = stack.enter_context(stage.platform(home / "platform"))
    issuer = "http://localhost:" + addresses.pop("gateway").partition(":")[2]
    edge, _ = stack.enter_context(stage.envoy(addresses, home, issuer))
    token, order = stage.buyer(addresses)
    url = f"http://127.0.0.1:{edge}/v1/orders"
    orders(url, token, order, 2.0)  # warm-up
    return orders(url, token, order, 10.0)


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", default="bare,unseen,chassis,gateway,typical,orders")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    servers = [name for name in names if name not in {"gateway", "orders"}]

    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        home = Path(directory)
        stack.callback(end, processes)
        if servers:
            targets = stage_targets(servers, home, processes)
            if "gateway" in names and "chassis" in names:
                behind = targets[servers.index("chassis")]
                edge, pid = stack.enter_context(
                    stage.envoy({"items": f"127.0.0.1:{behind.port}"}, home)
                )
                targets.append(Target("gateway", "127.0.0.1", edge, pids=[*behind.pids, pid]))
            for target in targets:
                load(target, 0.5, arguments.connections)  # warm-up
            for number in range(arguments.rounds):
                turn = number % len(targets)
                for target in targets[turn:] + targets[:turn]:
                    measure(target, arguments.seconds, arguments.connections)
            print(report(targets), flush=True)
        if "orders" in names:
            print(order_times(home, stack))


def end(processes: list[subprocess.Popen]) -> None:
    """Stop the servers."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)


if __name__ == "__main__":
    main()
