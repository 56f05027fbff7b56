"""Images: what the Dockerfile promises, and the tools that build, measure and reload them.

Whole images are built by `make images` and by CI; nothing here needs a builder.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import archive, images, reload, slim
from scripts.topology import ROOT, load

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMMIT = images.Commit("abc123", 1_700_000_000, "https://example.org/slipway")
SERVICES = sorted(service.package for service in load().packages)


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile."""
    return re.split(r"(?m)^FROM .* AS (\w+)$", DOCKERFILE)[1:][stages().index(name) * 2 + 1]


def stages() -> list[str]:
    return re.findall(r"(?m)^FROM .* AS (\w+)$", DOCKERFILE)


# The Dockerfile


def test_the_runtime_is_the_last_stage_so_that_a_build_without_a_target_makes_it():
    assert stages()[-1] == "runtime"


def test_images_run_as_a_numeric_user_and_in_exec_form():
    assert re.search(r"(?m)^USER 10001:10001$", stage("common"))
    for target in ("runtime", "dev", "smoke"):
        commands = re.findall(r"(?m)^(?:ENTRYPOINT|CMD) (.*)$", stage(target))
        assert commands
        assert all(isinstance(json.loads(command), list) for command in commands)


def test_every_final_stage_stands_on_the_base_image_and_takes_only_two_folders():
    assert re.findall(r"(?m)^COPY (.*)$", stage("common")) == [
        "--from=dependencies /opt/venv /opt/venv",
        "--from=checked /app /app",
    ]
    assert "COPY" not in stage("runtime")


def test_neither_an_address_nor_a_credential_is_in_the_dockerfile():
    assert "://" not in DOCKERFILE
    assert not re.search(r"(?m)^(ARG|ENV) .*(INDEX|TOKEN|PASSWORD|CERT)", DOCKERFILE)


@pytest.mark.parametrize("service", SERVICES)
def test_what_the_dockerfile_copies_is_in_the_tree_and_in_the_context(service: str):
    """.dockerignore begins with everything, so each source must be let in."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    sources = re.findall(r"(?m)^COPY (?!--from)(\S+) ", DOCKERFILE)
    assert sources
    for source in sources:
        path = source.replace("${SERVICE}", service)
        assert (ROOT / path).exists(), path
        assert any(path == entry or path.startswith(f"{entry}/") for entry in allowed), path


@pytest.mark.parametrize("service", ["chassis", *SERVICES])
def test_each_dependency_of_a_service_is_locked_with_hashes(service: str):
    """The build takes the versions from the lock and refuses a package that is not in it."""
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())
    for requirement in project["project"]["dependencies"]:
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert found
        name = re.sub(r"[-_.]+", "-", found[0]).lower()
        if name == "slipway-chassis":
            continue
        assert re.search(rf"(?m)^{name}==\S+.*\\\n    --hash=sha256:", lock), name


# The builder


@pytest.mark.parametrize("builder", images.BUILDERS)
def test_each_builder_gets_the_service_the_target_and_the_commit(builder: str):
    line = images.command(
        builder, load()["orders"], "slipway/orders:v1", commit=COMMIT, target="dev"
    )
    assert line[0] == builder
    assert {"--target=dev", "--tag=slipway/orders:v1", "--build-arg=SERVICE=orders"} <= set(line)
    assert {"--build-arg=VERSION=v1", "--build-arg=REVISION=abc123"} <= set(line)
    assert "--build-arg=CREATED=2023-11-14T22:13:20Z" in line
    times = {"--timestamp=315532800", "--build-arg=SOURCE_DATE_EPOCH=315532800"}
    assert len(times & set(line)) == 1


def test_a_mirror_is_handed_over_as_a_file_that_the_command_only_names():
    environ = {"PIP_INDEX_URL": "https://user:secret@mirror.example/simple", "PIP_CERT": "/ca.pem"}
    with images.mirror_secrets(environ) as secrets:
        assert secrets["index"].read_text() == environ["PIP_INDEX_URL"]
        line = images.command(
            "docker", load()["info"], "slipway/info:v1", commit=COMMIT, secrets=secrets
        )
    assert f"--secret=id=index,src={secrets['index']}" in line
    assert "--secret=id=ca,src=/ca.pem" in line
    assert "mirror.example" not in " ".join(line)
    assert not secrets["index"].exists()


def test_without_a_mirror_there_is_no_secret():
    with images.mirror_secrets({}) as secrets:
        assert secrets == {}


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://user:token@example.org/slipway.git", "https://example.org/slipway.git"),
        ("https://example.org:8443/slipway", "https://example.org:8443/slipway"),
        ("git@example.org:slipway.git", ""),
        ("/home/me/slipway", ""),
        ("", ""),
    ],
)
def test_the_label_of_the_source_holds_a_public_address_or_nothing(remote: str, shown: str):
    assert images.public_url(remote) == shown


def test_a_machine_without_a_builder_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main(["build"]) == 2
    said = capsys.readouterr().err
    assert "none of docker, podman, buildah works" in said
    assert said.count("\n") == 1


def test_a_client_without_its_daemon_is_no_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, code in (("docker", 1), ("podman", 0)):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\nexit {code}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.find_builder() == "podman"
    with pytest.raises(images.ImageError, match="docker does not work here"):
        images.find_builder("docker")


def test_releases_of_one_package_are_one_image():
    """It is built once, from the folder of the package."""
    [service] = images.chosen(["trainers-commands", "trainers-queries"])
    assert [each.image for each in images.chosen(["trainers"])] == [service.image]
    line = images.command("buildah", service, f"{service.image}:1", commit=COMMIT)
    assert "--build-arg=SERVICE=trainers" in line
    assert len(images.chosen([])) == len({service.image for service in load()})


def test_an_unknown_service_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    assert images.main(["build", "order"]) == 2
    assert capsys.readouterr().err.startswith("images: order: no such service; there are auth,")


def test_a_bad_time_is_refused():
    with pytest.raises(images.ImageError, match="SOURCE_DATE_EPOCH: 'soon'"):
        images.find_commit(environ={"SOURCE_DATE_EPOCH": "soon"})


# Archives


def layer(files: dict[str, bytes], *, mode: int = 0o644, mtime: int = 0) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size, item.mode, item.mtime = len(content), mode, mtime
            tar.addfile(item, io.BytesIO(content))
    return packed.getvalue()


def image(tmp_path: Path, user: str = "10001", **options: int) -> archive.Image:
    content = options.pop("content", 5)
    config = {"created": str(options), "config": {"User": user}, "rootfs": {}}
    members = {
        "base.tar": layer({"etc/passwd": b"root", "opt/readme": b"x"}),
        "ours.tar": layer({"app/main.py": b"x" * content, "app/a.py": b"1"}, **options),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "Layers": ["base.tar", "ours.tar"]}]
        ).encode(),
    }
    file = tmp_path / "image.tar"
    file.write_bytes(layer(members))
    return archive.read(file)


def test_the_size_of_an_image_leaves_the_base_out(tmp_path: Path):
    assert image(tmp_path, content=7).size == 8


def test_two_images_are_the_same_when_only_times_differ(tmp_path: Path):
    assert archive.differences(image(tmp_path, mtime=1), image(tmp_path, mtime=2)) == []


def test_a_changed_file_mode_or_setting_is_found(tmp_path: Path):
    first = image(tmp_path)
    assert archive.differences(first, image(tmp_path, content=6)) == ["app/main.py"]
    assert archive.differences(first, image(tmp_path, mode=0o600)) == ["app/a.py", "app/main.py"]
    assert archive.differences(first, image(tmp_path, user="0")) == ["config.config"]


# Slim


def test_a_library_without_its_debug_information_still_loads(tmp_path: Path):
    import uvloop.loop

    library = tmp_path / Path(uvloop.loop.__file__).name
    shutil.copy(uvloop.loop.__file__, library)
    cached = tmp_path / "cached"  # uv links what it installs
    cached.hardlink_to(library)
    before = library.stat().st_size
    saved = slim.strip(library)
    assert cached.stat().st_size == before
    assert saved > 0
    assert library.stat().st_size == before - saved
    assert slim.strip(library) == 0
    load_it = (
        "import importlib.util, sys;"
        f"s = importlib.util.spec_from_file_location('uvloop.loop', {str(library)!r});"
        "m = importlib.util.module_from_spec(s); s.loader.exec_module(m);"
        "assert m.__file__.startswith(sys.argv[1]); m.Loop().close()"
    )
    subprocess.run([sys.executable, "-c", load_it, str(tmp_path)], check=True)


def test_what_is_not_needed_to_run_is_taken_out_and_the_rest_stays(tmp_path: Path):
    gone = ["a/tests/test_a.py", "a/x.pyi", "a/x.pyx", "a-stubs/a.pyi", "a/__pycache__/x.pyc"]
    kept = ["a/x.py", "a/x.so", "a/py.typed", "a/testing/x.py", "a-1.dist-info/RECORD"]
    for name in gone + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345678")
    assert slim.slim(tmp_path) == 8 * len(gone)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == sorted(kept)


# Reload


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The reloader on a small program that says its version and waits for SIGTERM."""
    folder = tmp_path / "app"
    folder.mkdir()
    program(folder, 1)
    code = (
        "import sys, signal; from pathlib import Path; from scripts.reload import Reloader;"
        "r = Reloader([sys.argv[1], 'serve'], Path(sys.argv[1]));"
        "signal.signal(signal.SIGTERM, r.stop); sys.exit(r.run())"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:  # closes the pipe
        yield process, folder
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its child too


def program(folder: Path, version: int) -> None:
    (folder / "__main__.py").write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        f"print('version', {version}, flush=True)\n"
        "signal.pause()\n"
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_changed_file_restarts_the_service(reloading):
    process, folder = reloading
    assert line(process) == "version 1"
    program(folder, 2)
    assert line(process) == "reload: __main__.py"
    assert line(process) == "version 2"


def test_the_process_that_waits_runs_the_files_as_they_are_when_it_is_sent_off(tmp_path: Path):
    """It is made before the change, with libraries in memory, and must not know the old files."""
    main = tmp_path / "__main__.py"
    main.write_text("raise SystemExit('old')")
    reloader = reload.Reloader([str(tmp_path), "serve"], tmp_path)
    with reloader._prepare(("json", "no_such_library")) as waiting:
        main.write_text("import sys\nsys.exit(7 if sys.argv[1:] == ['serve'] else 8)")
        waiting.communicate("go\n")
        assert waiting.returncode == 7
    with reloader._prepare(()) as unused:
        unused.communicate("")
        assert unused.returncode == 0


def test_a_service_that_cannot_start_waits_for_the_next_change(reloading):
    process, folder = reloading
    assert line(process) == "version 1"
    (folder / "__main__.py").write_text("this is no Python\n")
    said = [line(process)]
    while "waiting for a change" not in said[-1]:
        said.append(line(process))
    assert said[-1] == "reload: the service ended with 1; waiting for a change"
    program(folder, 3)
    assert [line(process), line(process)] == ["reload: __main__.py", "version 3"]


def test_sigterm_ends_the_service_and_gives_its_exit_code(reloading):
    process, _ = reloading
    assert line(process) == "version 1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7


def test_the_copy_keeps_what_was_synced_and_never_runs_old_bytecode(tmp_path: Path):
    """Bytecode of the image is unchecked: beside a changed source it would win."""
    source, target = tmp_path / "app", tmp_path / "copy"
    (source / "synced").mkdir(parents=True)
    module = source / "synced" / "api.py"
    module.write_text("print('old')")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(module), invalidation_mode=unchecked)
    reload.copy(source, target)
    (target / "synced" / "api.py").write_text("print('new')")
    reload.copy(source, target)
    for folder, said in ((source, "old"), (target, "new")):
        line = [sys.executable, "-c", "import synced.api"]
        result = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == said
    assert list(target.rglob("*.pyc"))
