"""A run of PyBench: what it says of what its tasks lack, and how much upstream's profile shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.__main__ import main
from runner.journal import read_events, read_trajectories
from tests.processes import run_module


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of two tasks without input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERNELFLEET_CONFIG", raising=False)
    root = tmp_path / "PyBench"
    (root / "data/meta").mkdir(parents=True)
    tasks = [{"index": index, "user": "do it", "file_paths": []} for index in ("118", "135")]
    (root / "data/meta/task.json").write_text(json.dumps(tasks))
    return root


@pytest.fixture(name="bare_python")
def _bare_python(tmp_path: Path) -> Path:
    """An interpreter without site-packages."""
    path = tmp_path / "bare"
    path.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')  # type: ignore[attr-defined]
    path.chmod(0o755)
    return path


def arguments(root: Path, *more: str) -> list[str]:
    return ["--model", "nop", "--set", "benchmark=pybench", "--set", f"data.root={root}", *more]


LACKING = "lacks packages that tasks need; make install-pybench brings them:\n  qrcode, for task 118\n"


def test_missing_packages_are_listed_before_the_run(
    root: Path, bare_python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, for the tasks that are to run, of the interpreter that the sandboxes use."""
    python = f"sandbox.profiles={{other: {{python: {bare_python}}}}}"
    assert main(arguments(root, "--dry-run", "--set", python, "--set", "sandbox.profile=other")) == 0
    written = capsys.readouterr()
    assert f"warning: {bare_python} {LACKING}" in written.err
    assert "qrcode" not in written.out

    # The default profile's interpreter is this one, which task 135 needs nothing of.
    assert main(arguments(root, "--dry-run", "--set", python, "--samples", "135")) == 0
    assert capsys.readouterr().err == ""


def test_only_skipped_tasks_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for a task without its input is told that, and what would bring it."""
    tasks = [
        {"index": i, "user": "do it", "file_paths": [f"./data/{i}.csv"] * (i == "7")} for i in ("7", "8")
    ]
    (root / "data/meta/task.json").write_text(json.dumps(tasks))
    assert main(arguments(root, "--dry-run", "--samples", "7")) == 2
    assert "skipped: 1, 7 for one: ./data/7.csv is missing" in capsys.readouterr().err


def test_strict_refuses(root: Path, bare_python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is lacking is an error then."""
    python = ("--set", f"sandbox.python={bare_python}")
    assert main(arguments(root, "--dry-run", "--strict-data", *python)) == 2
    assert LACKING.removesuffix("\n") in capsys.readouterr().err


@pytest.mark.parametrize(("option", "on_stdout"), [("--quiet", False), ("--json-progress", True)])
def test_standard_error_stays_clean(
    root: Path, bare_python: Path, option: str, on_stdout: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quiet run says nothing, and one whose standard error is JSON says it elsewhere."""
    assert main(arguments(root, "--dry-run", option, "--set", f"sandbox.python={bare_python}")) == 0
    written = capsys.readouterr()
    assert written.err == ""
    assert ("qrcode, for task 118" in written.out) is on_stdout


def replay(root: Path, run_dir: Path, code: str, *settings: str) -> dict[str, Any]:
    """Run task 135 with this code and return its line."""
    recording = root / "recorded.jsonl"
    replies = [f"```python\n{code}\n```", "Finished: all"]
    messages = [{"role": "assistant", "content": reply} for reply in replies]
    recording.write_text(json.dumps({"index": "135", "messages": messages}) + "\n")
    ran = run_module(
        "runner", "--set", "benchmark=pybench", "--set", f"data.root={root}", "--samples", "135",
        "--model", f"replay:{recording}", "--run-dir", str(run_dir), *settings,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (row,) = read_trajectories(run_dir)
    return row


LONG = "print('x' * 400_000); import sys; print('y' * 300_000, file=sys.stderr); 'z' * 200_000"


@pytest.mark.kernel
@pytest.mark.parametrize("kernel", [None, "lean"])
def test_upstream_shows_observations_whole(root: Path, tmp_path: Path, kernel: str | None) -> None:
    """Hundreds of kilobytes reach the model uncut, from ipykernel and, if that is asked for, from our kernel."""
    chosen = ("--set", f"sandbox.kernel={kernel}") if kernel else ()
    row = replay(root, tmp_path / "run", LONG, "--set", "profile=upstream", *chosen)

    assert row["kernel"] == (kernel or "ipykernel")
    assert [message["role"] for message in row["messages"][:3]] == ["system", "user", "user"]
    observation = row["messages"][4]["content"]
    assert [observation.count(letter * 1000) for letter in "xyz"] == [400, 300, 200]
    assert "left out" not in observation


@pytest.mark.kernel
def test_default_shows_head_and_tail(root: Path, tmp_path: Path) -> None:
    """Ours shows 16,000 characters and says how many are left out; the event says what is lacking."""
    row = replay(root, tmp_path / "run", LONG)

    assert row["kernel"] == "lean"
    assert [message["role"] for message in row["messages"][:3]] == ["system", "user", "assistant"]
    observation = row["messages"][3]["content"]
    assert "characters left out" in observation
    assert len(observation) < 17_000
    (event,) = [event for event in read_events(tmp_path / "run") if event["event"] == "requirements"]
    assert event["python"] == sys.executable
    assert event["modules"] == {}
