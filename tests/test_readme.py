"""Every command in the README runs as it stands there, and what it says of the files is true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sandbox_pool import PoolConfig
from tests.processes import ROOT, clean_environment, run_module

README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVER = "http://localhost:8000/v1"


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[str]:
    """The address of a stub model server."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stub_server"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for `runs/` in all commands."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.kernel
@pytest.mark.timeout(200)
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, server: str, runs: Path, request: pytest.FixtureRequest) -> None:
    """A command of the README ends with exit code 0, with real servers and folders in its gaps."""
    if "path/to" in command or "runs/pybench" in command:
        data = request.getfixturevalue("kernelfleet_data") / "pybench"
        recorded = data / "golden/gpt4turbo"
        for gap, there in (
            ("PyBench", data),
            ("trajectory.jsonl", recorded / "trajectory.jsonl"),
            ("output", recorded / "output"),
        ):
            command = command.replace(f"path/to/{gap}", str(there))
        command += " --limit 2" * ("--config" in command)
    command = command.replace(SERVER, server).replace("runs/", f"{runs}/")
    python, minus_m, *arguments = shlex.split(command)
    assert (python, minus_m) == ("python", "-m")
    is_run = arguments[0] == "runner" and (len(arguments) == 1 or arguments[1].startswith("-"))
    if is_run and "--run-dir" not in arguments:
        arguments += ["--run-dir", str(runs / "unnamed")]

    ran = run_module(*arguments)
    assert ran.returncode == 0, ran.stderr


def test_commands_are_found() -> None:
    """The parametrisation above has not silently become empty."""
    assert len(COMMANDS) >= 10


def test_targets_are_run_by_ci() -> None:
    """Each make target that the README names exists, and what a newcomer is told to run is run by CI."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", README)) | {"demo"}
    by_ci = set(re.findall(r"^make ([a-z-]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))

    assert named <= targets
    assert {"demo", "test", "check", "install-pybench"} <= by_ci
    # `install` is part of every target; the others need minutes or uv.
    assert named - by_ci <= {"install", "help", "bench", "bench-pybench", "install-engines", "lock"}


def test_help_target() -> None:
    """`make help` lists each target with a phrase."""
    ran = subprocess.run(
        ["make", "help"], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert {"demo", "test", "check", "install"} <= {line.split()[0] for line in ran.stdout.splitlines()}


def test_example_of_a_task_is_the_file() -> None:
    """The task shown is the one in configs/."""
    (shown,) = blocks("json")
    assert json.loads(shown) == json.loads((ROOT / "configs/example_tasks.jsonl").read_text())


@pytest.mark.kernel
@pytest.mark.parametrize(("number", "output"), [(0, r"(chart-[a-z-]+@1 answer\n){3}"), (1, "42\n")])
def test_programs_shown(tmp_path: Path, number: int, output: str) -> None:
    """Each program runs, and prints what one expects of it."""
    ran = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.fullmatch(output, ran.stdout)


def test_profiles_shown_are_valid() -> None:
    """The sandbox section shown is accepted, and means what its comments say."""
    (section,) = blocks("yaml")
    config = PoolConfig.model_validate(YAML(typ="safe").load(section)["sandbox"])
    assert config.profile_named("upstream").kernel == "ipykernel"
    assert config.profile_named("torch").preload == ("torch",)


def test_file_tree_is_complete() -> None:
    """Every module of the packages has its place in the tree, and no other has."""
    tree = next(block for block in blocks("") if block.startswith("runner/   "))
    named = set(re.findall(r"\b([a-z_0-9]+\.py)\b", tree))
    there = {
        path.name
        for package in ("runner", "sandbox_pool", "bench_data", "scoring")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named - there == set(), "named but not there"
    assert there - named == set(), "there but not named"
