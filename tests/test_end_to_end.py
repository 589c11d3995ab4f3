"""The commands as a user runs them, with real kernels: the demo, resume, kill -9, drain."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench_data import load
from tests.processes import run_module, start_module, wait_until_gone

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_complete(run_dir: Path, attempts: set[str]) -> None:
    """One line per attempt, and every artifact that it names is there, with its size and hash."""
    lines = rows(run_dir / "trajectories.jsonl")
    assert Counter(line["attempt"] for line in lines) == dict.fromkeys(attempts, 1)
    n_artifacts = 0
    for line in lines:
        for artifact in line["artifacts"]:
            content = (run_dir / artifact["path"]).read_bytes()
            assert len(content) == artifact["bytes"]
            assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
            n_artifacts += 1
    assert n_artifacts > 20


@pytest.fixture(name="scratch")
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sandboxes, which must be empty and without processes at the end of a test."""
    return tmp_path_factory.mktemp("scratch")


def quickstart_attempts() -> set[str]:
    return {f"{sample.id}@1" for sample in load("quickstart").samples}


def test_oracle_passes_everything(tmp_path: Path, scratch: Path) -> None:
    """The demo: no config, first line says so, every reference solution passes, nothing is left behind."""
    ran = run_module("runner", "--run-dir", str(tmp_path / "run"), TMPDIR=str(scratch))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("No config given: this is the built-in demo (benchmark quickstart")
    assert list(scratch.iterdir()) == []
    assert wait_until_gone(scratch) == set()
    assert_complete(tmp_path / "run", quickstart_attempts())

    scored = run_module("scoring", str(tmp_path / "run"))
    assert scored.returncode == 0, scored.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert (report["n_passed"], report["n_scored"]) == (len(quickstart_attempts()),) * 2
    assert len(report["by_category"]) == 6

    again = run_module("runner", "--run-dir", str(tmp_path / "run"))
    assert again.returncode == 0
    assert "0 trajectories finished" in again.stdout
    assert_complete(tmp_path / "run", quickstart_attempts())


@pytest.mark.parametrize("model", ["decoy", "nop"])
def test_wrong_solutions_pass_nothing(tmp_path: Path, model: str) -> None:
    """No check accepts a plausible mistake, and none passes for free."""
    ran = run_module("runner", "--model", model, "--run-dir", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    run_module("scoring", "score", str(tmp_path))
    scores = rows(tmp_path / "scores.jsonl")

    assert len(scores) == len(quickstart_attempts())
    assert [score["sample_id"] for score in scores if score["passed"] is not False] == []


def test_protocol_can_be_changed(tmp_path: Path) -> None:
    """Quickstart's solutions pass in CodeAct's protocol too."""
    options = ["--samples", "math*", "--set", "protocol.kind=execute_tag", "--run-dir", str(tmp_path)]
    assert run_module("runner", *options).returncode == 0
    run_module("scoring", str(tmp_path))

    assert {score["passed"] for score in rows(tmp_path / "scores.jsonl")} == {True}


def test_ten_kills_lose_nothing(tmp_path: Path, scratch: Path) -> None:
    """SIGKILL at ten random moments, a resume each time: one line per attempt, all artifacts there."""
    moments = [random.uniform(0.3, 2.5) for _ in range(10)]
    for moment in moments:
        run = start_module("runner", "--run-dir", str(tmp_path), TMPDIR=str(scratch))
        time.sleep(moment)
        run.kill()
        run.communicate()
    assert wait_until_gone(scratch) == set(), f"kernels survived their runner; moments {moments}"

    ran = run_module("runner", "--run-dir", str(tmp_path))
    assert ran.returncode == 0, (moments, ran.stderr)
    assert_complete(tmp_path, quickstart_attempts())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_drains(tmp_path: Path, scratch: Path, number: signal.Signals, code: int) -> None:
    """A signal ends the run soon, its exit code says so, no kernel stays, and a resume ends it."""
    options = ["runner", "--samples", "[ct]*", "--concurrency", "2", "--run-dir", str(tmp_path)]
    run = start_module(*options, TMPDIR=str(scratch))
    journal = tmp_path / "trajectories.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)

    assert run.returncode == code, output
    assert "attempts left: run the same command with --run-dir" in output
    assert wait_until_gone(scratch) == set()
    n_before = len(rows(journal))
    assert 0 < n_before < 15

    assert run_module(*options).returncode == 0
    lines = rows(journal)
    assert len(lines) == len({line["attempt"] for line in lines}) == 15


def test_own_tasks_without_code(tmp_path: Path) -> None:
    """A JSON line with a check and a file is a benchmark."""
    (tmp_path / "numbers.csv").write_text("n\n1\n2\n39\n")
    task = {
        "id": "add-up",
        "messages": [{"role": "user", "content": "Add up column n of data/numbers.csv. Answer: <sum>"}],
        "files": [{"path": "data/numbers.csv", "source": "numbers.csv"}],
        "check": {"kind": "answer_number", "value": 42},
        "reference": {
            "cells": [
                "import csv\nprint(sum(int(r['n']) for r in csv.DictReader(open('data/numbers.csv'))))"
            ],
            "answer": "Answer: {last_line}",
        },
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    options = ["--set", f"benchmark=jsonl:{tmp_path}/tasks.jsonl", "--run-dir", str(tmp_path / "run")]
    assert run_module("runner", *options).returncode == 0
    assert run_module("scoring", str(tmp_path / "run")).returncode == 0

    (score,) = rows(tmp_path / "run/scores.jsonl")
    assert score["passed"] is True
