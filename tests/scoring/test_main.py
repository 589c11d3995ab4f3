from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench_data import load
from sandbox_pool import FakePool, PoolConfig, UnsupportedHost
from scoring.__main__ import main

TASKS = [
    {"id": "two", "category": "sums", "check": {"kind": "answer_number", "value": 2}},
    {"id": "three", "category": "sums", "check": {"kind": "answer_number", "value": 3}},
    {"id": "open", "category": "talk"},
]


def trajectory(sample_id: str, answer: str, **changes: Any) -> dict[str, Any]:
    """Return a line of the journal, as far as scoring reads it."""
    return {
        "attempt": f"{sample_id}@1",
        "sample_id": sample_id,
        "epoch": 1,
        "turns": [{"completion": answer, "action": None}],
        "stop_reason": "answer",
        "owner": "model",
        "artifacts": [],
    } | changes


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Return a function that writes a run directory by hand."""

    def make(lines: list[dict[str, Any]], benchmark: str | None = None) -> Path:
        tasks, run_dir = tmp_path / "tasks.jsonl", tmp_path / "run"
        rows = ({**task, "messages": [{"role": "user", "content": "?"}]} for task in TASKS)
        tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run_dir.mkdir()
        config = {"benchmark": benchmark or f"jsonl:{tasks}", "data": {"root": None}}
        (run_dir / "config.json").write_text(
            json.dumps({"run_id": "r", "config_hash": "h", "config": config})
        )
        (run_dir / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run_dir

    return make


def test_a_run_is_scored(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores and the report are written in a stable order, and the table is printed."""
    lines = [trajectory("two", "Answer: 2"), trajectory("three", "Answer: 4"), trajectory("open", "well")]
    lines.append(trajectory("two", "Answer: 5"))
    run_dir = make_run(lines)
    assert main([str(run_dir)]) == 0
    out = capsys.readouterr().out
    assert "pass rate: withheld (50.0 % of the 2 scored): 1 of 3 attempts (33.3%)" in out
    scores = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert [(s["sample_id"], s["passed"], s["reason"]) for s in scores] == [
        ("open", None, "no check"),
        ("three", False, "answer '4': 4.0, expected 3.0"),
        ("two", True, "as expected"),
    ]
    report = json.loads((run_dir / "report.json").read_text())
    assert (report["pass_rate"], report["n_not_scored"], report["n_duplicates"]) == (None, 1, 1)
    assert report["config_hash"] == "h"


def test_scoring_again_gives_the_same_bytes(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Order of completion leaves no trace; `score` may be said or left out; --json shows the report."""
    lines = [trajectory("two", "Answer: 2"), trajectory("three", "Answer: 4")]
    run_dir = make_run(lines)
    assert main(["score", str(run_dir), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (run_dir / "report.json").read_text()
    assert "pass rate" in captured.err
    before = [(run_dir / name).read_bytes() for name in ("scores.jsonl", "report.json")]
    (run_dir / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[::-1]))
    assert main([str(run_dir), "--json", str(run_dir / "copy.json")]) == 0
    after = [(run_dir / name).read_bytes() for name in ("scores.jsonl", "report.json", "copy.json")]
    assert after == [*before, before[1]]
    assert "pass rate" in capsys.readouterr().out


def test_nobody_reads_on(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`| head` is no failure, and says nothing."""
    run_dir = make_run([trajectory("two", "Answer: 2")])
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as broken:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr("sys.stdout", broken)
        assert main([str(run_dir), "--json", "-"]) == 0
    assert (run_dir / "report.json").is_file()


@pytest.mark.parametrize(
    ("benchmark", "lines", "text"),
    [
        ("pybench", [trajectory("1", "")], "pybench needs data.root"),
        ("other:x", [trajectory("1", "")], "no benchmark is called 'other:x'"),
        ("jsonl:gone.jsonl", [trajectory("1", "")], "gone.jsonl"),
        (None, [], "has no trajectories yet"),
        (None, [trajectory("two", "", turns=None)], "trajectory 1: 'turns' is None, expected list"),
    ],
)
def test_bad_input_is_one_message(
    make_run: Any, capsys: pytest.CaptureFixture[str], benchmark: str | None, lines: Any, text: str
) -> None:
    """What cannot be scored ends with code 2, names the thing, and writes nothing."""
    run_dir = make_run(lines, benchmark)
    assert main([str(run_dir)]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert not (run_dir / "report.json").exists()


def test_a_missing_folder_is_said_before_the_work(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is scored for a report that could not be written."""
    run_dir = make_run([trajectory("two", "Answer: 2")])
    assert main([str(run_dir), "--json", str(run_dir / "absent/report.json")]) == 2
    assert f"there is no folder {run_dir}/absent; make it" in capsys.readouterr().err
    assert not (run_dir / "scores.jsonl").exists()


def test_no_run_directory_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong path and no path at all are usage errors."""
    assert main([str(tmp_path / "gone")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "options", "trusted"),
    [(None, [], False), (True, [], True), (None, ["--allow-unsafe"], True)],
)
def test_a_machine_that_isolates_nothing(
    make_run: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: bool | None,
    options: list[str],
    trusted: bool,
) -> None:
    """Only the demo's run is scored without being asked; else one message says what to do."""

    class NoTier(FakePool):
        def __init__(self, config: PoolConfig, *, trusted_code: bool) -> None:
            super().__init__()
            self.config = config
            assert trusted_code is trusted

        async def __aenter__(self) -> FakePool:
            if not trusted:
                raise UnsupportedHost("no user namespaces, no Landlock")
            return self

    monkeypatch.setattr("scoring.commands.score.SandboxPool", NoTier)
    run_dir = make_run([trajectory("two", "Answer: 2")])
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {"trusted_code": said}))

    assert main(["score", str(run_dir), *options]) == (0 if trusted else 1)
    error = capsys.readouterr().err
    assert error == ("" if trusted else (
        "scoring: no user namespaces, no Landlock; or --allow-unsafe, if you trust the code of this run\n"
    ))  # fmt: skip
    assert (run_dir / "report.json").exists() is trusted


@pytest.mark.kernel
@pytest.mark.timeout(120)
def test_files_are_scored_in_real_sandboxes(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the real pool a right module and page pass; one that exits and one that never imports fail."""
    samples = {sample.id: sample for sample in load("quickstart").samples}
    check = samples["software-roman-numerals"].check
    assert check is not None
    reference = samples["software-roman-numerals"].reference
    assert reference is not None
    run_dir = make_run([], "quickstart")

    def attempt(epoch: int, source: bytes) -> dict[str, Any]:
        path = f"artifacts/software-roman-numerals/{epoch}/output/roman.py"
        (run_dir / path).parent.mkdir(parents=True)
        (run_dir / path).write_bytes(source)
        entry = {"path": path, "bytes": len(source), "sha256": hashlib.sha256(source).hexdigest()}
        name = {"attempt": f"software-roman-numerals@{epoch}", "epoch": epoch, "artifacts": [entry]}
        return trajectory("software-roman-numerals", "Answer: done", **name)

    right = written_by(reference.cells, run_dir.parent / "work")
    lines = [attempt(1, right), attempt(2, b"import os\nos._exit(0)"), attempt(3, b"import no_such_package")]
    (run_dir / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(run_dir)]) == 0
    capsys.readouterr()
    scores = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert [score["passed"] for score in scores] == [True, False, False]
    assert "the process ended with exit code 0" in scores[1]["reason"]
    assert "importing it raised ModuleNotFoundError" in scores[2]["reason"]


def written_by(cells: tuple[str, ...], folder: Path) -> bytes:
    """Return what a reference solution writes to output/roman.py."""
    import subprocess
    import sys

    (folder / "output").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", "\n".join(cells)], cwd=folder, check=True, capture_output=True)
    return (folder / "output" / "roman.py").read_bytes()
