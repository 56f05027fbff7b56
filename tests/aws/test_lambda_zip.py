"""The zip: what is in it, that it is the same each time, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import lambda_cold_start, lambda_zip
from scripts.topology import ROOT, load

NOT_THERE = (
    "alembic", "gunicorn", "httptools", "pytest", "tests", "uvicorn", "uvloop", "watchfiles", "bin",
    "boto3", "mangum/tests", "chassis/testing", "chassis/server.py", "items/tests",
)  # fmt: skip


def test_the_zip_has_what_a_function_needs_and_no_more(items_zip: Path) -> None:
    """Under Lambda's limits, with the bytecode of every module, and nothing that only serves."""
    lambda_zip.check_size(items_zip)
    with zipfile.ZipFile(items_zip) as packed:
        entries = packed.infolist()
        names = {entry.filename for entry in entries}
        handler = packed.read("lambda_function.py").decode()
    assert 'handler_for("items")' in handler
    for name in NOT_THERE:
        assert not [each for each in names if f"/{each}".startswith(f"/{name}")], name
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyi", ".c"))]
    tag = sys.implementation.cache_tag
    for module in (name for name in names if name.endswith(".py")):
        folder, _, file = module.rpartition("/")
        compiled = f"{folder}/__pycache__/{file[:-3]}.{tag}.pyc".lstrip("/")
        assert compiled in names, module
    assert {"chassis/aws.py", "items/main.py", "mangum/adapter.py"} <= names
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert [entry.filename for entry in entries] == sorted(names)
    assert not [name for name in names if name.endswith(("/RECORD", "/direct_url.json"))]


def test_the_same_files_make_the_same_zip(items_zip: Path, tmp_path: Path) -> None:
    """Whatever their times and modes are, and in whichever order they were written."""
    task = tmp_path / "task"
    with zipfile.ZipFile(items_zip) as packed:
        for entry in reversed(packed.infolist()):
            if entry.filename.startswith(("chassis/", "items/", "lambda_function")):
                file = Path(packed.extract(entry, task))
                os.utime(file, (1, 1))
    lambda_zip.pack(task, tmp_path / "one.zip")
    for file in task.rglob("*.py"):
        file.chmod(0o600)
        os.utime(file, (2e9, 2e9))
    lambda_zip.pack(task, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_bytecode_does_not_depend_on_where_it_was_made(tmp_path: Path) -> None:
    """Two builds in different folders compile to the same."""
    made = []
    for name in ("one", "two"):
        task = tmp_path / name
        task.mkdir()
        (task / "module.py").write_text(
            "NAMES = {'a', 'b', 'c', 'd'}\n\ndef f():\n    raise OSError\n"
        )
        lambda_zip.compile_bytecode(task, lambda_zip.own_version())
        [compiled] = task.rglob("*.pyc")
        made.append(compiled.read_bytes())
        assert b"/var/task/module.py" in made[-1]
        assert str(tmp_path).encode() not in made[-1]
    assert made[0] == made[1]


def test_a_zip_that_is_too_large_names_its_largest_packages(items_zip: Path) -> None:
    """One line, which says what to leave out."""
    with pytest.raises(lambda_zip.ZipError, match=r"over the .* largest: \w+ [\d.]+ MB") as refused:
        lambda_zip.check_size(items_zip, limit=1_000_000)
    sizes = lambda_zip.sizes(items_zip)
    largest = max(sizes, key=lambda name: sizes[name][1])
    assert f"largest: {largest} " in str(refused.value)
    with pytest.raises(lambda_zip.ZipError, match="unzipped"):
        lambda_zip.check_size(items_zip, unzipped=1_000_000)


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("orders", "saga-recovery"),
        ("tasks", "due-soon"),
        ("inventory", "expiry"),
        ("nothing", "no such service; there are auth"),
        ("", "no such service"),
    ],
)
def test_what_cannot_run_there_is_refused_in_one_line(service: str, reason: str) -> None:
    """Exit code 2, before anything is built."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.lambda_zip", service],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("lambda: ")
    assert reason in line


def test_a_wrong_setting_is_told_in_one_line() -> None:
    """Exit code 2, and its name."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.lambda_zip", "items"],
        cwd=ROOT,
        env={**os.environ, "ITEMS_PORT": "x"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("lambda: ITEMS_PORT: ")


def test_the_cold_start_of_an_empty_interpreter_is_counted(tmp_path: Path) -> None:
    """It is the floor of every start, and no start is free."""
    wall, cpu, modules = lambda_cold_start.start(sys.executable, tmp_path, "")
    assert min(wall, cpu) > 0.001
    assert modules > 10
    with pytest.raises(lambda_zip.ZipError, match="does not start: ModuleNotFoundError"):
        lambda_cold_start.start(sys.executable, tmp_path, "import nothing_of_this_name")


def test_a_zip_says_which_python_it_is_for(tmp_path: Path) -> None:
    """By the bytecode of its handler; a zip without is none of ours."""
    file = tmp_path / "made.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("__pycache__/lambda_function.cpython-313.pyc", b"")
    assert lambda_cold_start.bytecode_version(file) == "3.13"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("lambda_function.py", b"")
    with pytest.raises(lambda_zip.ZipError, match="no bytecode of a handler"):
        lambda_cold_start.bytecode_version(file)


def test_services_without_loops_of_their_own_may_run_there() -> None:
    """What the chassis runs in loops has its jobs; notifications has an inbox to clean."""
    tree = load()
    for name in ("info", "items", "notifications"):
        assert lambda_zip.find(name, tree).name == name


def test_a_missing_interpreter_is_told_with_what_to_do() -> None:
    """The bytecode of another version would be ignored, and each cold start would compile."""
    assert lambda_zip.find_python(lambda_zip.own_version()) == sys.executable
    with pytest.raises(lambda_zip.ZipError, match=r"no Python 3\.99 here"):
        lambda_zip.find_python("3.99")
