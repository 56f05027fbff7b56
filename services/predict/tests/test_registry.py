"""What is loaded, what is refused and why, and how one version gives way to the next."""

import asyncio
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chassis.settings import SettingsError


async def refused(client: Any) -> dict[str, str]:
    """The quarantine: where -> reason."""
    listed = (await client.get("/v1/models")).json()
    return {each["where"]: each["reason"] for each in listed["quarantine"]}


async def test_a_new_version_takes_over_and_the_old_one_can_still_be_named(
    world: Any, helpers: Any
) -> None:
    """Without a restart; and a version that is removed is gone, its series too."""
    world.write(bias=1)
    async with world.client() as client:
        assert await helpers.value(client, 1) == 3
        world.write(version="2", bias=2)
        assert await helpers.look(client) == {"loaded": ["sum/2"], "refused": [], "removed": []}
        assert await helpers.value(client, 1) == 4
        assert await helpers.value(client, 1, version="1") == 3
        assert await helpers.look(client) == {"loaded": [], "refused": [], "removed": []}
        for file in (world.root / "sum" / "1").iterdir():
            file.unlink()
        (world.root / "sum" / "1").rmdir()
        assert (await helpers.look(client))["removed"] == ["sum/1"]
        gone = {"features": {"a": 1}, "version": "1"}
        assert (await client.post("/v1/predict", json=gone)).status_code == 404
        text = (await client.get("/metrics")).text
        assert 'predict_latency_seconds_count{model="sum",version="2"}' in text
        assert 'version="1"' not in text
        assert await helpers.metric(client, "predict_models_loaded") == 1


async def test_the_loop_looks_by_itself(world: Any, helpers: Any) -> None:
    """Each `rescan_seconds`."""
    world.write(bias=1)
    async with world.client(rescan_seconds=7) as client:
        world.write(bias=2)
        await world.clock.wait_for_sleepers()
        world.clock.advance(7)
        async with asyncio.timeout(20):
            while await helpers.value(client, 1) != 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_file_that_is_cut_short_is_refused_and_the_old_one_serves_on(
    world: Any, helpers: Any
) -> None:
    """Under the same version; once it is whole it takes over."""
    folder = world.write(bias=1)
    async with world.client() as client:
        new = helpers.linear_onnx((1, 1), 2)
        (folder / "model.json").write_text(json.dumps(helpers.card_of("sum", "1", new)))
        for size in (0, 1, len(new) // 2, len(new) - 1):
            (folder / "model.onnx").write_bytes(new[:size])
            assert (await helpers.look(client))["refused"] == ["sum/1"], size
            assert await refused(client) == {"sum/1": "checksum"}
            assert await helpers.value(client, 1) == 3
        [entry] = (await client.get("/v1/models")).json()["quarantine"]
        assert entry["serving"]
        assert "half written" in entry["detail"]
        assert await helpers.metric(client, "predict_models_quarantined") == 1
        failures = 'predict_model_load_failures_total{reason="checksum"}'
        assert await helpers.metric(client, failures) == 4
        assert (await helpers.look(client))["refused"] == []  # unchanged: not tried again
        assert await helpers.metric(client, failures) == 4
        (folder / "model.onnx").write_bytes(new)
        assert (await helpers.look(client))["loaded"] == ["sum/1"]
        assert await helpers.value(client, 1) == 4
        assert await refused(client) == {}
        assert await helpers.metric(client, "predict_models_quarantined") == 0


async def test_a_card_that_is_cut_short_is_refused(world: Any, helpers: Any) -> None:
    """At every length: it is no JSON, or lacks something."""
    folder = world.write(bias=1)
    whole = (folder / "model.json").read_text()
    async with world.client() as client:
        for size in range(0, len(whole) - 1, 40):
            (folder / "model.json").write_text(whole[:size])
            await helpers.look(client)
            assert await refused(client) == {"sum/1": "card"}, size
        assert await helpers.value(client, 1) == 3


async def test_pickles_are_refused_for_what_they_are_and_never_loaded(
    world: Any, helpers: Any, tmp_path: Path
) -> None:
    """By any name and anywhere, also in the clothes of an ONNX or a skops file."""
    proof = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (proof,)

    bad = pickle.dumps(Evil())
    world.write()
    for name in ("model.pkl", "sum/model.joblib", "sum/1/Model.PICKLE"):
        (world.root / name).write_bytes(bad)
    card = helpers.card_of("dressed", "1", bad)
    world.put("dressed", "1", bad, card)
    world.put("dressed", "2", bad, {**card, "version": "2", "file": "model.skops"})
    async with world.client() as client:
        assert await refused(client) == {
            "dressed/1": "format",
            "dressed/2": "format",
            "model.pkl": "pickle",
            "sum/1/Model.PICKLE": "pickle",
            "sum/model.joblib": "pickle",
        }
        quarantine = (await client.get("/v1/models")).json()["quarantine"]
        assert "runs code of whoever wrote it" in quarantine[2]["detail"]
        assert await helpers.value(client, 1) == 2
        answer = await client.post("/v1/predict", json={"model": "dressed", "features": {"a": 1}})
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:slipway:problem:model-unavailable"
        assert "quarantine" in answer.json()["detail"]
    assert not proof.exists()
    pickle.loads(bad)
    assert proof.exists(), "the pickle of this test would have run code"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"name": "other"}, "card"),
    "an unknown member": ({"colour": "red"}, "card"),
    "no features": ({"features": []}, "card"),
    "a feature twice": ({"features": [{"name": "a"}, {"name": "a"}]}, "card"),
    "a default out of range": (
        {"features": [{"name": "a"}, {"name": "b", "default": 5.0, "max": 1.0}]}, "card"),
    "an example that does not fit": ({"example": {"c": 1}}, "card"),
    "classes of a regression": ({"classes": ["x", "y"]}, "card"),
    "edges that fall": (
        {"training": {"features": {"a": {"edges": [2.0, 1.0], "shares": [0.5, 0.25, 0.25]}}}},
        "card"),
    "a distribution of no feature": (
        {"training": {"features": {"z": {"edges": [1.0], "shares": [0.5, 0.5]}}}}, "card"),
    "an output that is not there": ({"output": "nothing"}, "format"),
    "fewer features than the graph takes": (
        {"features": [{"name": "a"}], "example": {"a": 1}}, "check"),
    "a classifier that gives one number": (
        {"task": "classification", "classes": ["x", "y"]}, "check"),
    "another file": ({"sha256": "0" * 64}, "checksum"),
    "a file elsewhere": ({"file": "../../secret.onnx"}, "card"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_card_is_refused_before_it_serves(
    world: Any, helpers: Any, name: str
) -> None:
    """The example is predicted before a version takes over; the old one serves on."""
    changes, reason = WRONG[name]
    world.write(bias=1)
    content = helpers.linear_onnx((1, 1), 2)
    card = {**helpers.card_of("sum", "1", content), **changes}
    async with world.client() as client:
        (world.root / "sum" / "1" / "model.onnx").write_bytes(content)
        (world.root / "sum" / "1" / "model.json").write_text(json.dumps(card))
        assert (await helpers.look(client))["refused"] == ["sum/1"]
        assert await refused(client) == {"sum/1": reason}
        assert await helpers.value(client, 1) == 3


async def test_a_model_without_a_number_for_its_example_is_refused(
    world: Any, helpers: Any
) -> None:
    """Infinite weights load well and predict nothing."""
    world.write()
    world.write("bad", weights=(float("inf"), 1))
    async with world.client() as client:
        assert await refused(client) == {"bad/1": "check"}


async def test_bounds_on_what_is_read(world: Any, helpers: Any) -> None:
    """Too large, too many, a bad name, no file at all, a pipe that would never end."""
    import os

    world.write()
    world.write("zz-too-many")
    large = world.write("big")
    (large / "model.onnx").write_bytes(b"x" * 5000)
    (world.root / "empty" / "1").mkdir(parents=True)
    (world.root / "Bad Name" / "1").mkdir(parents=True)
    piped = world.write("pipe")
    (piped / "model.onnx").unlink()
    os.mkfifo(piped / "model.onnx")
    (world.root / ".hidden").mkdir()
    (world.root / "README.md").write_text("passed over")
    async with world.client(max_model_bytes=1000, max_models=4) as client:
        assert await refused(client) == {
            "Bad Name/1": "name",
            "big/1": "size",
            "empty/1": "missing",
            "pipe/1": "unreadable",
            "zz-too-many/1": "limit",
        }
        assert await helpers.value(client, 1) == 2


async def test_skops_models_need_trusted_types(world: Any, helpers: Any) -> None:
    """scikit-learn's own are trusted; any other is refused by name, unless settings allow it."""
    import copy
    import hashlib

    import skops.io
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def put(name: str, estimator: Any) -> None:
        content = skops.io.dumps(estimator.fit([[1.0, 1.0], [2.0, 0.0], [0.0, 5.0]], [2, 2, 5]))
        card = helpers.card_of(name, "1", content)
        card |= {"file": "model.skops", "sha256": hashlib.sha256(content).hexdigest()}
        world.put(name, "1", content, card)

    put("plain", LinearRegression())
    put("strange", make_pipeline(FunctionTransformer(copy.deepcopy), LinearRegression()))
    (world.root / "broken").mkdir()
    whole = (world.root / "plain" / "1" / "model.skops").read_bytes()
    card = helpers.card_of("broken", "1", whole[: len(whole) // 2])
    world.put("broken", "1", whole[: len(whole) // 2], {**card, "file": "model.skops"})
    async with world.client(default_model="plain") as client:
        assert await helpers.value(client, 1) == pytest.approx(2)
        assert await refused(client) == {"broken/1": "format", "strange/1": "untrusted"}
        quarantine = (await client.get("/v1/models")).json()["quarantine"]
        [detail] = [each["detail"] for each in quarantine if each["reason"] == "untrusted"]
        assert "copy.deepcopy" in detail
        assert "PREDICT_SKOPS_TRUSTED" in detail
    async with world.client(default_model="strange", skops_trusted=["copy.deepcopy"]) as client:
        assert await refused(client) == {"broken/1": "format"}
        assert await helpers.value(client, 1) == pytest.approx(2)


async def test_a_skops_file_that_unpacks_to_too_much_is_refused(world: Any, helpers: Any) -> None:
    """A zip of a few kilobytes may hold gigabytes."""
    world.write()
    folder = world.root / "bomb" / "1"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"0" * 3_000_000)
    content = (folder / "model.skops").read_bytes()
    card = {**helpers.card_of("bomb", "1", content), "file": "model.skops"}
    world.put("bomb", "1", content, card)
    async with world.client(max_model_bytes=100_000) as client:
        assert await refused(client) == {"bomb/1": "size"}


async def test_a_folder_that_goes_away_takes_nothing_with_it(world: Any, helpers: Any) -> None:
    """A mount that is lost is no order to stop serving; it is counted and told."""
    world.write()
    async with world.client() as client:
        world.root.rename(world.root.with_name("elsewhere"))
        assert (await client.post("/internal/models/look")).status_code == 503
        assert await helpers.value(client, 1) == 2
        assert await helpers.metric(client, "predict_model_scan_failures_total") == 1
        world.root.with_name("elsewhere").rename(world.root)
        assert (await helpers.look(client))["removed"] == []


async def test_without_a_model_the_service_does_not_start(world: Any) -> None:
    """One line that says why, so that a rollout halts; a folder that is not there is another."""
    with pytest.raises(SettingsError, match=r"^PREDICT_MODELS: no model could be .*there is none"):
        async with world.client():
            pass
    folder = world.write()
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^PREDICT_MODELS: no model .*sum/1: .*sha256"):
        async with world.client():
            pass
    with pytest.raises(SettingsError, match=r"^PREDICT_MODELS: .*nowhere: No such file"):
        async with world.client(models=str(world.root / "nowhere")):
            pass


@pytest.mark.parametrize("models", ["ftp://models/index.json", "https://", "file://"])
def test_a_url_that_is_none_is_refused(world: Any, models: str) -> None:
    """And plain HTTP where real models are."""
    with pytest.raises(ValueError, match="not a URL of an index"):
        world.settings(models=models)
    with pytest.raises(ValueError, match="use https"):
        world.settings(models="http://models/index.json", environment="production")


async def test_a_swap_under_load_loses_nothing_and_mixes_nothing(world: Any, helpers: Any) -> None:
    """Requests all the while: each is answered by the old model or by the new one, whole."""
    world.write(bias=0)
    stop = False
    seen: list[tuple[float, ...]] = []

    async def ask(client: Any) -> None:
        body = {"features": [{"a": n} for n in range(5)]}
        while not stop:
            answer = await client.post("/v1/predict", json=body)
            assert answer.status_code == 200, answer.text
            seen.append(tuple(each["value"] for each in answer.json()["predictions"]))

    async with world.client() as client, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask(client))
        for swap in range(1, 11):
            world.write(bias=swap * 100)
            assert (await helpers.look(client))["loaded"] == ["sum/1"]
            before = len(seen)
            while len(seen) < before + 10:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        stop = True
    allowed = {tuple(100.0 * swap + n + 1 for n in range(5)) for swap in range(11)}
    assert set(seen) == allowed
