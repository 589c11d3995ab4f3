"""Looking at a recorded run's file, and writing one trajectory as a notebook."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runner.__main__ import main
from runner.journal import Journal
from runner.records import Turn
from tests.runner.factories import append, trajectory

CODE = "Look.\n```python\nprint(1)\n```"
OBSERVED = "[INFO]This is a Code Interpreter Message:\n1\n\x1b[31m"


def show(*arguments: object) -> int:
    return main(["show", *map(str, arguments)])


@pytest.fixture(name="recorded")
def _recorded(tmp_path: Path) -> Path:
    """A run as PyBench records it: an answer, one that breaks off, one that was given up."""
    opening = [{"role": "system", "content": "be good"}, {"role": "user", "content": "画图"}]
    replied = [{"role": "assistant", "content": CODE}, {"role": "user", "content": OBSERVED}]
    rows: list[Any] = [
        {"messages": [*opening, *replied, {"role": "assistant", "content": "Finished: 1"}], "index": "2"},
        {"messages": [*opening, *replied], "index": "11"},
        {"index": "52"},
    ]
    path = tmp_path / "trajectory.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make_run(path: Path, *attempts: tuple[str, int]) -> Path:
    async def write() -> None:
        with Journal(path) as journal:
            journal.write_config({"run_id": "r", "config": {}})
            for sample_id, epoch in attempts:
                turn = Turn(CODE, action="print(1)", observation={"status": "ok", "outputs": []})
                await append(journal, trajectory(sample_id, epoch, turns=[turn, Turn("done")]))

    asyncio.run(write())
    return path


def test_recorded_run(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many attempts, how they ended, how their cells did."""
    assert show(recorded) == 0
    assert capsys.readouterr().out == (
        f"recorded run {recorded}\n"
        "3 attempts: 2 model_error, 1 answer\n"
        "9 messages, 3 turns; 2 observations: 2 ok\n"
        "  model_error: 11@1, 52@1\n"
    )


@pytest.mark.parametrize("name", ["2", "2@1"])
def test_recorded_attempt(recorded: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Turn by turn, the observation as it was recorded, nothing claimed that was not."""
    assert show(recorded, name) == 0
    text = capsys.readouterr().out
    for part in ("2@1: answer (owner model)", "be good", "画图", "turn 1 (stop)\n", "action\nprint(1)",
                 "observation: ok\n1\n\\x1b[31m", "Finished: 1"):  # fmt: skip
        assert part in text
    for part in ("tokens", "seconds", "0.00 s", "\x1b", "INFO"):
        assert part not in text
    assert show(recorded, "52") == 0
    assert "holds no messages" in capsys.readouterr().out


def test_our_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Our own file is read without its run directory."""
    run = make_run(tmp_path / "r", ("a", 1))
    assert show(run / "trajectories.jsonl") == 0
    assert "1 attempts: 1 answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('{"index": "2"}\nnonsense\n', [], "trajectory.jsonl:2: not JSON"),
        ('{"index": "12"}\n', ["13"], "holds nothing of '13' (1 attempts"),
        ('{"question": "2"}\n', ["2"], ":1: neither a trajectory"),
    ],
)
def test_unreadable(
    tmp_path: Path, content: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no recorded run, an attempt that is not in it."""
    path = tmp_path / "trajectory.jsonl"
    path.write_text(content)
    assert show(path, *arguments) == 1
    assert message in capsys.readouterr().err
    assert show(tmp_path / "absent.jsonl", *arguments) == 1
    assert "absent.jsonl is not there; give a run directory, or" in capsys.readouterr().err


def test_notebook_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One trajectory becomes a notebook; an older one is replaced, and nothing else is left."""
    run, path = make_run(tmp_path / "r", ("a", 1), ("b", 1)), tmp_path / "deep/b.ipynb"
    assert show(run, "b", "--ipynb", path) == 0
    assert f"b@1 is in {path}" in capsys.readouterr().out
    first = path.read_bytes()
    path.write_text("an older one")
    assert show(run, "b@1", "--ipynb", path) == 0
    assert path.read_bytes() == first
    made = nbformat.reads(first.decode(), as_version=nbformat.NO_CONVERT)
    nbformat.validate(made)
    assert made.metadata.kernelfleet.attempt == "b@1"
    assert [file.name for file in path.parent.iterdir()] == ["b.ipynb"]


def test_notebook_of_a_recorded_run(recorded: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """To standard output, with nothing else on it."""
    assert show(recorded, "2", "--ipynb", "-") == 0
    made = nbformat.reads(capsysbinary.readouterr().out.decode(), as_version=nbformat.NO_CONVERT)
    nbformat.validate(made)
    (code,) = [cell for cell in made.cells if cell.cell_type == "code"]
    assert (code.source, code.outputs[0].text) == ("print(1)", "1\n\x1b[31m")


def test_notebook_replaces_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the hand does not cost a run its trajectories."""
    run = make_run(tmp_path / "r", ("a", 1))
    before = (run / "trajectories.jsonl").read_bytes()
    for target in (run / "trajectories.jsonl", run):
        assert show(run, "a", "--ipynb", target) == 1
        assert "it is not replaced" in capsys.readouterr().err
    assert (run / "trajectories.jsonl").read_bytes() == before


def test_notebook_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample of two epochs is two notebooks; no sample is none."""
    run, path = make_run(tmp_path / "r", ("a", 1), ("a", 2)), tmp_path / "a.ipynb"
    assert show(run, "a", "--ipynb", path) == 1
    assert "'a' is 2 trajectories (a@1, a@2); name one of them" in capsys.readouterr().err
    assert show(run, "b", "--ipynb", path) == 1
    assert "holds nothing of 'b'" in capsys.readouterr().err
    assert not path.exists()
    with pytest.raises(SystemExit, match="2"):
        show(run, "--ipynb", path)
    assert "--ipynb needs ATTEMPT" in capsys.readouterr().err
    assert show(run, "a@2", "--ipynb", path) == 0


def test_notebook_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be written is named, and no traceback is shown."""
    run = make_run(tmp_path / "r", ("a", 1))
    (tmp_path / "file").write_text("no folder")
    assert show(run, "a", "--ipynb", tmp_path / "file/a.ipynb") == 1
    assert f"cannot write {tmp_path}/file/a.ipynb" in capsys.readouterr().err
