"""What serving a model by `services/predict` gains over the version of the tutorials.

The tutorial loads a joblib file and calls the model in an async handler. Both serve the same fitted
models, each from one uvicorn process (uvloop, httptools), to the same clients; `predict` does all
that it does in production: tokens, metrics, an access line for each request. Rounds are short and
interleaved, and each gives one paired ratio. It asserts nothing.

    python -m tests.load.predict_bench [--rounds 8] [--seconds 3] [--connections 64]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.load.bench import Target, cpu_seconds, paired
from tests.load.stage import free_port

HERE = Path(__file__).parent
MODELS = {"diabetes": "diabetes-progression", "wine": "wine-cultivar"}
"""By name in `predict.train`: a forest that is slow for one row, and a regression that is fast."""


def tutorial(folder: Path) -> Any:
    """Return the application that the tutorials write."""
    import joblib
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    app = FastAPI()

    def route(name: str, row: type[BaseModel]) -> None:
        model = joblib.load(folder / f"{name}.joblib")

        @app.post(f"/predict/{name}")
        async def predict(features: row) -> dict[str, Any]:  # type: ignore[valid-type]
            values = [list(features.model_dump().values())]
            if hasattr(model, "predict_proba"):
                return {"probabilities": model.predict_proba(values)[0].tolist()}
            return {"value": float(model.predict(values)[0])}

    for name in MODELS:
        fields = json.loads((folder / f"{name}.json").read_text())
        route(name, create_model("Row", **dict.fromkeys(fields, (float, ...))))
    return app


def serve_tutorial(folder: Path, port: int) -> None:
    """Serve it until SIGTERM."""
    import uvicorn

    uvicorn.run(
        tutorial(folder),
        port=port,
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


def fit(folder: Path) -> dict[str, dict[str, Any]]:
    """Fit the models of the package, write them as joblib files; return a row for each."""
    import joblib

    from predict import train

    rows = {}
    for name in MODELS:
        _, make = train.SAMPLES[name]
        trained = make()
        rows[name] = trained.card["example"]
        joblib.dump(trained.estimator, folder / f"{name}.joblib")
        (folder / f"{name}.json").write_text(json.dumps(list(rows[name])))
    return rows


@contextmanager
def process(command: list[str], url: str, log: Path, **env: str) -> Iterator[int]:
    """Run a server until the block ends; yield its pid once `url` answers."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                if running.poll() is not None or time.monotonic() > ends:
                    raise SystemExit(f"predict_bench: {log.read_text()[-500:]}") from None
                time.sleep(0.1)
        yield running.pid
    finally:
        running.terminate()
        running.wait(30)


def measure(
    target: Target, body: str, headers: list[str], seconds: float, connections: int
) -> None:
    """Load `target` once and note the figures.

    First it answers one request: what clients of the round before left in its queue is done then.
    """
    address = f"http://{target.host}:{target.port}{target.path}"
    given = dict(header.split(": ", 1) for header in ["content-type: application/json", *headers])
    urllib.request.urlopen(urllib.request.Request(address, body.encode(), given), timeout=120)
    before = cpu_seconds(target.pids)
    command = [
        sys.executable, str(HERE / "client.py"), target.host, str(target.port), target.path,
        "--seconds", str(seconds), "--connections", str(connections),
        "--method", "POST", "--body", body,
    ]  # fmt: skip
    for header in ["content-type: application/json", *headers]:
        command += ["--header", header]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    target.rate.append(figures["requests"] / figures["seconds"])
    used = cpu_seconds(target.pids) - before
    target.cpu.append(used / max(figures["requests"], 1) * 1e6)
    target.p50.append(figures["p50_ms"])
    target.p99.append(figures["p99_ms"])
    target.errors += figures["errors"]


def report(name: str, ours: Target, theirs: Target) -> str:
    """Return the lines of one model."""
    lines = [
        f"{name:<9}{target.name:<9}{statistics.median(target.rate):>9.0f}"
        f"{statistics.median(target.cpu):>12.0f}{statistics.median(target.p50):>10.1f}"
        f"{statistics.median(target.p99):>10.1f}{target.errors:>8}"
        for target in (theirs, ours)
    ]
    ratios = [b / a for a, b in zip(theirs.rate, ours.rate, strict=True) if a]
    lines.append(
        f"{name}: {statistics.median(ratios):.1f} x the predictions/s"
        f" ({min(ratios):.1f} to {max(ratios):.1f}),"
        f" {paired(ours.cpu, theirs.cpu, inverse=True):.1f} x for each CPU second"
    )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print the table."""
    from chassis.testing import TestIssuer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_tutorial(options.serve, options.port)
        return
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        home = Path(directory)
        rows = fit(home)
        issuer = stack.enter_context(TestIssuer())
        ports = {"ours": free_port(), "theirs": free_port()}
        pids = {
            "ours": stack.enter_context(
                process(
                    [sys.executable, "-m", "chassis", "serve", "predict"],
                    f"http://127.0.0.1:{ports['ours']}/startupz",
                    home / "predict.log",
                    PREDICT_PORT=str(ports["ours"]),
                    PREDICT_HOST="127.0.0.1",
                    PREDICT_ISSUER=issuer.issuer,
                    PREDICT_AUDIENCE=issuer.audience,
                    PREDICT_JWKS_URL=issuer.jwks_url,
                )
            ),
            "theirs": stack.enter_context(
                process(
                    [
                        sys.executable, "-m", "tests.load.predict_bench",
                        "--serve", directory, "--port", str(ports["theirs"]),
                    ],
                    f"http://127.0.0.1:{ports['theirs']}/openapi.json",
                    home / "tutorial.log",
                )
            ),
        }  # fmt: skip
        token = issuer.authorization("bench", "predict")["Authorization"]
        print(f"{'model':<9}{'server':<9}{'pred/s':>9}{'CPU us/pred':>12}{'p50 ms':>10}"
              f"{'p99 ms':>10}{'errors':>8}")  # fmt: skip
        for name, served in MODELS.items():
            ours = Target("predict", "127.0.0.1", ports["ours"], "/v1/predict", [pids["ours"]])
            theirs = Target(
                "tutorial", "127.0.0.1", ports["theirs"], f"/predict/{name}", [pids["theirs"]]
            )
            ours_body = json.dumps({"model": served, "features": rows[name]})
            work = [
                (ours, ours_body, [f"authorization: {token}"]),
                (theirs, json.dumps(rows[name]), []),
            ]
            for target, body, headers in work:
                measure(target, body, headers, 1.0, options.connections)  # warm-up
                for seen in (target.rate, target.cpu, target.p50, target.p99):
                    seen.clear()
            for number in range(options.rounds):
                for target, body, headers in work[:: 1 if number % 2 else -1]:
                    measure(target, body, headers, options.seconds, options.connections)
            print(report(name, ours, theirs), flush=True)


if __name__ == "__main__":
    main()
