"""predict as a process behind the gateway: models that come, go and break while it serves."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.ports import pick_free
from tests.local.platform_handle import ROOT, eventually
from tests.system.harness import Shop

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SAMPLES = ROOT / "services" / "predict" / "predict" / "models"
EXAMPLES = ROOT / "services" / "predict" / "examples"
NAME = "diabetes-progression"


def test_predictions_through_the_gateway(shop: Shop) -> None:
    """Both APIs, the routes that anybody may read, and what stays inside."""
    [buyer] = shop.buyers(1)
    body = {"features": {"bmi": 31.5}}
    named = shop.call("POST", "/v1/predict", who=buyer, json=body)
    assert named.status_code == 200, named.text
    [found] = named.json()["predictions"]
    assert found["interval"]["lower"] < found["value"] < found["interval"]["upper"]
    tensor = {"name": "bmi", "shape": [1], "datatype": "FP64", "data": [31.5]}
    inferred = shop.call(
        "POST", f"/v2/models/{NAME}/versions/1/infer", who=buyer, json={"inputs": [tensor]}
    )
    assert inferred.json()["outputs"][0]["data"] == [found["value"]]
    assert shop.call("GET", "/v2").json()["name"] == "slipway-predict"
    assert shop.call("GET", "/v2/health/ready").json() == {"ready": True}
    assert shop.call("GET", "/v1/models", who=buyer).status_code == 200
    for method, path, status in (
        ("POST", "/v1/predict", 401),
        ("GET", "/v1/models", 401),
        ("POST", f"/v2/models/{NAME}/infer", 401),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2", 405),
        ("POST", "/internal/models/look", 404),
        ("GET", "/v1/predict", 405),
    ):
        assert shop.call(method, path).status_code == status, path
    # A request without a version in the path chooses by the header, as everywhere.
    chosen = shop.call("POST", "/predict", who=buyer, json=body, headers={"X-API-Version": "1"})
    assert chosen.json() == named.json()


@dataclass
class Served:
    """A process of predict over a folder of its own."""

    url: str
    root: Path
    process: subprocess.Popen[bytes]
    log: Path
    headers: dict[str, str]
    answers: Counter[str] = field(default_factory=Counter)
    values: set[float] = field(default_factory=set)

    def ask(self, client: httpx2.Client) -> httpx2.Response:
        """Predict one row."""
        body = {"features": {"bmi": 31.5}}
        return client.post(f"{self.url}/v1/predict", json=body, headers=self.headers)

    def listed(self) -> dict[str, Any]:
        """What `GET /v1/models` says."""
        answer = httpx2.get(
            f"{self.url}/v1/models", headers=self.headers, trust_env=False, timeout=60
        )
        assert answer.status_code == 200, answer.text
        listed: dict[str, Any] = answer.json()
        return listed

    @contextmanager
    def load(self, clients: int = 6) -> Iterator[None]:
        """Ask all the while, each client on a connection of its own, and count the answers."""
        over = threading.Event()
        lock = threading.Lock()

        def work() -> None:
            with httpx2.Client(trust_env=False, timeout=30) as client:
                while not over.is_set():
                    try:
                        answer = self.ask(client)
                        said = str(answer.status_code)
                    except httpx2.HTTPError as error:
                        said, answer = type(error).__name__, None
                    with lock:
                        self.answers[said] += 1
                        if answer is not None and answer.status_code == 200:
                            self.values.add(round(answer.json()["predictions"][0]["value"], 3))

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


@contextmanager
def served(tmp_path: Path, issuer: Any, *models: Path) -> Iterator[Served]:
    """Start `python -m chassis serve predict` over copies of these folders of models."""
    root = tmp_path / "models"
    for source in models:
        shutil.copytree(source, root, dirs_exist_ok=True)
    [port] = pick_free(1)
    log = tmp_path / "predict.log"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREDICT_")},
        "PREDICT_PORT": str(port),
        "PREDICT_HOST": "127.0.0.1",
        "PREDICT_ISSUER": issuer.issuer,
        "PREDICT_AUDIENCE": issuer.audience,
        "PREDICT_JWKS_URL": issuer.jwks_url,
        "PREDICT_MODELS": str(root),
        "PREDICT_RESCAN_SECONDS": "0.1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chassis", "serve", "predict"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        eventually(ready, 90)
        yield Served(url, root, process, log, issuer.authorization("u1", "predict"))
    finally:
        process.kill()
        process.wait(30)


def change(folder: Path, half_width: float) -> None:
    """Write a card with another interval: the same model, known again by its answers."""
    card = json.loads((folder / "model.json").read_text())
    card["interval"]["half_width"] = half_width
    aside = folder / ".model.json"
    aside.write_text(json.dumps(card))
    aside.rename(folder / "model.json")


def test_a_hundred_swaps_and_a_sigterm_under_load_drop_nothing(
    tmp_path: Path, token_issuer: Any
) -> None:
    """Every request is answered, by one whole version or another, until the process must end."""
    with served(tmp_path, token_issuer, SAMPLES) as predict:
        folder = predict.root / NAME / "1"
        with predict.load():
            for swap in range(1, 101):
                change(folder, float(swap))
                time.sleep(0.02)
            change(folder, 777.0)

            def newest() -> bool:
                models = predict.listed()["models"]
                return bool(models[0]["interval"]["half_width"] == 777.0)

            eventually(newest, 60)
            before = predict.answers.total()
            eventually(lambda: predict.answers.total() > before + 50, 60)
        assert set(predict.answers) == {"200"}, predict.answers
        assert len(predict.values) == 1
        loaded = predict.log.read_text().count('"model.loaded"')
        assert loaded > 5, "hardly a swap was seen"
        predict.process.send_signal(signal.SIGTERM)
        assert predict.process.wait(60) == 0


def test_files_that_break_while_they_are_loaded_harm_nobody(
    tmp_path: Path, token_issuer: Any
) -> None:
    """Truncated, rewritten, deleted, half a card, by a writer that never rests: all 200."""
    randomness = random.Random(5)
    with served(tmp_path, token_issuer, SAMPLES) as predict:
        folder = predict.root / NAME / "1"
        model, card = (folder / "model.onnx").read_bytes(), (folder / "model.json").read_bytes()
        with predict.load():
            ends = time.monotonic() + 6
            while time.monotonic() < ends:
                file, whole = randomness.choice(
                    ((folder / "model.onnx", model), (folder / "model.json", card))
                )
                match randomness.randrange(4):
                    case 0:
                        os.truncate(file, randomness.randrange(len(whole)))
                    case 1:
                        file.write_bytes(whole[: randomness.randrange(len(whole))])
                    case 2:
                        file.unlink()
                        file.write_bytes(whole)
                    case 3:
                        file.write_bytes(randomness.randbytes(1000))
                time.sleep(randomness.random() * 0.05)
                file.write_bytes(whole)
            (folder / "model.onnx").write_bytes(model[:-1])

            def told() -> bool:
                quarantine = predict.listed()["quarantine"]
                return bool(quarantine and quarantine[0]["reason"] == "checksum")

            eventually(told, 60)
            assert predict.listed()["quarantine"][0]["serving"]
            (folder / "model.onnx").write_bytes(model)
            eventually(lambda: predict.listed()["quarantine"] == [], 60)
        assert set(predict.answers) == {"200"}, predict.answers
        assert len(predict.values) == 1
        assert '"model.refused"' in predict.log.read_text()


def test_a_skops_model_comes_beside_onnx_ones(tmp_path: Path, token_issuer: Any) -> None:
    """scikit-learn is imported by a process that serves; the others' requests go on meanwhile."""
    with served(tmp_path, token_issuer, SAMPLES) as predict, predict.load(2):
        assert "sklearn" not in _mapped(predict.process.pid)
        source = EXAMPLES / "wine-cultivar" / "1"
        target = predict.root / "wine-cultivar" / "2"
        target.mkdir()
        shutil.copy(source / "model.skops", target)
        card = json.loads((source / "model.json").read_text())
        (target / "model.json").write_text(json.dumps({**card, "version": "2"}))
        eventually(lambda: len(predict.listed()["models"]) == 3, 90)
        with httpx2.Client(trust_env=False, timeout=60) as client:
            answers = [
                client.post(
                    f"{predict.url}/v1/predict",
                    json={"model": "wine-cultivar", "version": version, "features": {}},
                    headers=predict.headers,
                ).json()["predictions"][0]
                for version in ("1", "2")
            ]
        assert answers[0]["label"] == answers[1]["label"]
        for name, value in answers[0]["probabilities"].items():
            assert value == pytest.approx(answers[1]["probabilities"][name], abs=1e-5)
        assert "sklearn" in _mapped(predict.process.pid)
    assert set(predict.answers) == {"200"}, predict.answers


def _mapped(pid: int) -> str:
    """The libraries that a process has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_a_process_that_cannot_load_its_models_ends_with_one_line(tmp_path: Path) -> None:
    """So that a rollout halts while the old pods serve."""
    broken = tmp_path / "broken" / NAME / "1"
    broken.mkdir(parents=True)
    card = json.loads((SAMPLES / NAME / "1" / "model.json").read_text())
    (broken / "model.onnx").write_bytes(b"nothing of the kind")
    digest = hashlib.sha256(b"nothing of the kind").hexdigest()
    (broken / "model.json").write_text(json.dumps({**card, "sha256": digest}))
    done = subprocess.run(
        [sys.executable, "-m", "chassis", "serve", "predict"],
        env={
            **os.environ,
            "PREDICT_MODELS": str(tmp_path / "broken"),
            "PREDICT_PORT": str(pick_free(1)[0]),
            "PREDICT_HOST": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"PREDICT_MODELS: no model could be loaded ({NAME}/1: ONNX Runtime")
