"""Real input: the code that the authors recorded, on the real files, through real kernels, and its scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.pybench_replay import recorded_cells, replayed_cells
from tests.processes import run_module, wait_until_gone

pytestmark = [pytest.mark.kernel, pytest.mark.data]


JOBLIB = "joblib.dump: numpy 2 pickles its arrays in a way that pickle.load, which upstream uses, cannot read"


def replay(data: Path, run_dir: Path, scratch: Path, *options: str, name: str = "gpt4turbo") -> Path:
    recording = data / f"pybench/golden/{name}/trajectory.jsonl"
    ran = run_module(
        "runner", "--config", "configs/pybench.yaml", "--model", f"replay:{recording}",
        "--set", f"data.root={data}/pybench", "--run-dir", str(run_dir), *options,
        TMPDIR=str(scratch),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert wait_until_gone(scratch) == set()
    assert list(scratch.iterdir()) == []
    return recording


@pytest.mark.timeout(200)
def test_recorded_code_on_tables(
    kernelfleet_data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The data cleaning tasks run on private copies, and their outputs are collected."""
    replay(kernelfleet_data, tmp_path, tmp_path_factory.mktemp("scratch"), "--samples", "[2-9]")
    rows = [json.loads(line) for line in (tmp_path / "trajectories.jsonl").read_text().splitlines()]

    assert {row["sample_id"] for row in rows} == set("23456789")
    # The recording of task 2 breaks off after its code, and says nothing more.
    reasons = {row["sample_id"]: row["stop_reason"] for row in rows}
    assert reasons.pop("2") == "model_error"
    assert set(reasons.values()) == {"answer"}
    outputs = {artifact["path"] for row in rows for artifact in row["artifacts"]}
    assert "artifacts/2/1/output/2.csv" in outputs
    # At head the recorded code found 12 rows; here it removes the four duplicates of the first version itself.
    assert len((tmp_path / "artifacts/2/1/output/2.csv").read_text().splitlines()) == 13


RECORDED = {
    "gpt4turbo": (
        15,
        {
            "8": ("Failed", "the repeated rows, which are gone from the input at head, are left in"),
            "40": ("Failed", JOBLIB),
            "47": ("Failed", JOBLIB),
            "48": ("Failed", JOBLIB),
            "50": ("Failed", JOBLIB),
            "51": ("Failed", JOBLIB),
            "52": ("Failed", "pandas 3 leaves missing text missing in astype(str), and joining it raises"),
            "129": ("Failed", "it downloads from the internet"),
        },
    ),
    "PyLlama3": (
        0,
        {
            "8": ("Failed", "the repeated rows, which are gone from the input at head, are left in"),
            "18": ("Pass", "numpy 2 gives numbers that can be rounded where pandas gave Python's"),
        },
    ),
}
"""By recording: how many cells more may fail than did; the tasks that come out otherwise, and why."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("recording_name", RECORDED)
def test_recorded_run_whole(
    kernelfleet_data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, recording_name: str
) -> None:
    """All 125 tasks end, none by our fault, and score as when they were recorded, but for what is explained."""
    pytest.importorskip("jieba", reason="what PyBench's tasks import is not installed: make install-pybench")
    n_more, explained = RECORDED[recording_name]
    recording = replay(kernelfleet_data, tmp_path, tmp_path_factory.mktemp("scratch"), name=recording_name)
    rows = [json.loads(line) for line in (tmp_path / "trajectories.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["attempt"] for row in rows}) == 125
    assert (tmp_path / "failures.jsonl").read_text() == ""

    recorded, replayed = recorded_cells(recording), replayed_cells(tmp_path)
    both = recorded.keys() & replayed.keys()
    n_then = sum(1 for key in both if recorded[key].error)
    n_now = sum(1 for key in both if replayed[key].error)
    assert len(both) > 280
    # What is new needs the internet, packages of several GB, or an older pandas or scikit-learn.
    assert n_now <= n_then + n_more
    assert sum(len(row["artifacts"]) for row in rows) > 100

    scored = run_module("scoring", str(tmp_path), "--json", "-")
    assert scored.returncode == 0, scored.stderr
    upstream = json.loads(scored.stdout)["details"]["profiles"]["upstream"]
    results = json.loads((kernelfleet_data / "pybench/golden_results.json").read_text())
    then = results["runs"][recording_name]["results"]
    others = {
        task: now
        for task, now in upstream["results"].items()
        if now != then[task] and task not in upstream["apart"]["missing inputs"]
    }
    assert others == {task: outcome for task, (outcome, _) in explained.items()}, upstream["reasons"]
