"""A run leaves in PyBench's own form, and is the same run when it comes back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench_data import Sample
from bench_data.pybench import UPLOAD_NOTE
from runner.encoding import encode_line
from runner.journal import Journal, read_recorded, read_trajectories
from runner.models.conversation import opening_messages
from runner.records import Owner, StopReason, Turn
from scoring.errors import RunDirError
from scoring.export import main, pybench_line, pybench_lines
from tests.processes import run_module
from tests.runner.factories import append, trajectory

TASKS: list[dict[str, Any]] = [
    {"index": "2", "category1": "数学求解", "category2": "", "category3": "", "user": "把 a.csv 加起来", "file_paths": ["./data/a.csv"], "attachments": ""},
    {"index": "3", "category1": "数学求解", "category2": "", "category3": "", "user": "What is 6 * 7?", "file_paths": [], "attachments": "", "unit_test": "assert"},
    {"index": "52", "category1": "数学求解", "category2": "", "category3": "", "user": "Break.", "file_paths": [], "attachments": ""},
]  # fmt: skip
FIELDS = ["messages", "index", "category1", "category2", "category3", "user", "file_paths", "attachments"]


def sample_of(task: dict[str, Any]) -> Sample:
    """Return a task as the loader makes a sample of it."""
    uploaded = {"role": "user", "content": UPLOAD_NOTE + ",".join(task["file_paths"])}
    asked = {"role": "user", "content": task["user"]}
    return Sample(id=task["index"], messages=(uploaded, asked), metadata=task)


SAMPLES = {task["index"]: sample_of(task) for task in TASKS}


def row(sample_id: str = "2", epoch: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a line of ours as it is read."""
    parsed: dict[str, Any] = orjson.loads(encode_line(trajectory(sample_id, epoch, **changes)))
    return parsed


def exported(*rows: dict[str, Any], epoch: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pybench_lines(rows, SAMPLES, epoch=epoch)]


@pytest.mark.parametrize("merge", [True, False])
def test_line(merge: bool) -> None:
    """Upstream's fields in upstream's order, and its two user messages whether they were merged or not."""
    reply = {"role": "assistant", "content": "Finished"}
    seen = [*opening_messages(SAMPLES["3"], "be good", merge=merge), reply]
    (line,) = exported(row("3", messages=seen))
    assert list(line) == [*FIELDS, "unit_test"]
    assert {key: line[key] for key in TASKS[1]} == TASKS[1]
    assert line["messages"] == [{"role": "system", "content": "be good"}, *SAMPLES["3"].messages, reply]


def test_written_as_upstream_writes() -> None:
    """One line each, text as it is, whatever is in it."""
    text = "画\u2028图\n\x00\x1b[31m😀\\"
    line = pybench_line(row("2", messages=[{"role": "assistant", "content": text}]), SAMPLES["2"])
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert "画\u2028图\\n" in line
    assert json.loads(line)["messages"][0]["content"] == text


def test_no_messages() -> None:
    """An attempt that never began is a bare index, as upstream has it."""
    assert list(pybench_lines([row("52", messages=[])], SAMPLES)) == ['{"index": "52"}\n']


def test_one_epoch_each_attempt_once() -> None:
    """The form has one line for a task."""
    rows = [row("3"), row("2", 2), row("2", 1), row("3"), row("3", 2)]
    assert [line["index"] for line in exported(*rows)] == ["3", "2"]
    assert [line["index"] for line in exported(*rows, epoch=2)] == ["2", "3"]


def test_only_the_opening_is_taken_apart() -> None:
    """A user message that a system prompt of the sample or a picture makes another is left as it is."""
    sample = Sample(
        id="2",
        messages=({"role": "system", "content": "s"}, {"role": "user", "content": "u"}),
        metadata=TASKS[0],
    )
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert json.loads(pybench_line(row("2", messages=messages), sample))["messages"] == messages


@pytest.mark.parametrize(
    ("message", "sample", "why"),
    [
        ({"role": "tool", "content": "1"}, SAMPLES["2"], "2@1 holds messages that are not text"),
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, SAMPLES["2"], "not text"),
        ({"role": "user", "content": [{"type": "text"}]}, SAMPLES["2"], "not text"),
        ({"role": "user", "content": "x"}, None, "2@1: the benchmark has no such sample"),
        ({"role": "user", "content": "x"}, Sample(id="2", messages=()), "2@1 is no task of PyBench's: its sample has no index, user, file_paths"),
    ],
)  # fmt: skip
def test_refused(message: dict[str, Any], sample: Sample | None, why: str) -> None:
    """What the form cannot hold is refused, not bent."""
    with pytest.raises(RunDirError, match=why):
        pybench_line(row("2", messages=[message]), sample)


def test_reasoning_is_left_out() -> None:
    """Upstream's messages are a role and a text."""
    (line,) = exported(row("2", messages=[{"role": "assistant", "content": "a", "reasoning_content": "r"}]))
    assert line["messages"] == [{"role": "assistant", "content": "a"}]


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Path:
    """A folder like a checkout of PyBench, with tasks of our own."""
    root = tmp_path / "checkout"
    (root / "data/meta").mkdir(parents=True)
    (root / "data/meta/task.json").write_text(json.dumps(TASKS))
    (root / "data/a.csv").write_text("n\n1\n41\n")
    return root


@pytest.fixture(name="run_dir")
def _run_dir(tmp_path: Path, checkout: Path) -> Path:
    """A run with one finished attempt, and one that failed by our fault."""

    async def write() -> None:
        with Journal(tmp_path / "run") as journal:
            config = {"benchmark": "pybench", "data": {"root": str(checkout)}}
            journal.write_config({"run_id": "r", "config": config})
            await append(journal, trajectory("3"))
            for name in ("2", "3"):
                failed = trajectory(name, stop_reason=StopReason.ENGINE_ERROR, owner=Owner.ENGINE)
                await journal.append_failure(encode_line(failed))

    asyncio.run(write())
    return tmp_path / "run"


def export(run_dir: Path, *options: object) -> int:
    return main([str(run_dir), "--format", "pybench", *map(str, options)])


def test_command(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To standard output or to a file; attempts that have no line are named."""
    assert export(run_dir) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["index"] for line in said.out.splitlines()] == ["3"]
    assert said.err == "scoring: 1 attempts have no line, for they failed by no fault of the model: 2@1\n"
    target = tmp_path / "trajectory.jsonl"
    target.write_text("an older one")
    assert export(run_dir, "--output", target) == 0
    assert target.read_text() == said.out
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("break_it", "options", "why"),
    [
        (lambda run, root: None, ["--epoch", "2"], "no finished attempts of epoch 2"),
        (lambda run, root: None, ["--output", "{run}/trajectories.jsonl"], "is a file of the run itself"),
        (lambda run, root: (root / "data/meta/task.json").unlink(), [], "task.json is not there"),
        (lambda run, root: (run / "config.json").unlink(), [], "is .* a run directory"),
        (lambda run, root: (run / "config.json").write_text('{"run_id": "r", "config": {"benchmark": "quickstart"}}'), [], "3@1: the benchmark has no such sample"),
    ],
    ids=["epoch", "own-file", "no-data", "no-config", "other-benchmark"],
)  # fmt: skip
def test_command_refuses(
    run_dir: Path,
    checkout: Path,
    break_it: Callable[[Path, Path], object],
    options: list[str],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 and the reason, nothing written."""
    before = (run_dir / "trajectories.jsonl").read_bytes()
    break_it(run_dir, checkout)
    assert export(run_dir, *(option.format(run=run_dir) for option in options)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(why, said.err)
    assert (run_dir / "trajectories.jsonl").read_bytes() == before


def test_no_place_to_write(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing folder, and one in the file's place, are exit code 2 with the reason."""
    assert export(run_dir, "--output", tmp_path / "absent/trajectory.jsonl") == 2
    assert f"there is no folder {tmp_path}/absent; make it" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    assert export(run_dir, "--output", tmp_path / "folder") == 2
    assert "folder is a folder; name a file in it" in capsys.readouterr().err
    assert export(run_dir, "--outputs", tmp_path / "folder") == 2
    assert "folder is there already; name a new folder" in capsys.readouterr().err


def test_output_files_in_one_folder(run_dir: Path, tmp_path: Path) -> None:
    """Those of all tasks, the later attempt's where two have one name; a file gives way to a folder."""
    outputs = tmp_path / "new/output"
    for name, contents in {
        "2": {"2.csv": b"a", "x/y": b"b", "z": b"c"},
        "52": {"x": b"d", "z": b"e"},
    }.items():
        folder = run_dir / f"artifacts/{name}/1"
        for path, content in {f"output/{path}": content for path, content in contents.items()}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / "elsewhere").write_bytes(b"f")
        left = [path for path in folder.rglob("*") if path.is_file()]
        entries: list[dict[str, Any]] = [
            {"path": str(path.relative_to(run_dir)), "bytes": 1} for path in left
        ]
        entries.append({"path": f"artifacts/{name}/1/output/link", "problem": "a symbolic link"})
        with (run_dir / "trajectories.jsonl").open("ab") as lines:
            lines.write(encode_line(row(name) | {"artifacts": entries}))

    assert export(run_dir, "--output", tmp_path / "t.jsonl", "--outputs", outputs) == 0
    files = [path for path in outputs.rglob("*") if path.is_file()]
    assert {str(path.relative_to(outputs)): path.read_bytes() for path in files} == {
        "2.csv": b"a",
        "x/y": b"b",
        "z": b"e",
    }

    (run_dir / "artifacts/52/1/output/z").write_bytes(b"changed")
    assert export(run_dir, "--output", tmp_path / "t.jsonl", "--outputs", tmp_path / "other") == 2


@pytest.mark.kernel
@pytest.mark.timeout(300)
def test_round_trip(checkout: Path, tmp_path: Path) -> None:
    """Recorded, run in our kernels, exported, run again: the same replies, actions and observations."""
    add_up = "Look.\n```python\nimport pandas\nprint(pandas.read_csv('./data/a.csv').n.sum())\n```"
    wrong = "```python\n1 / 0\n```\nNot executed:\n```python\n2\n```"
    replies = {
        "2": [add_up, "Finished: 42"],
        "3": [wrong, "```python\n6 * 7\n```", "Finished: 42"],
        "52": [wrong],
    }
    recorded = tmp_path / "trajectory.jsonl"
    recorded.write_text("".join(json.dumps({"index": index, "messages": [{"role": "assistant", "content": text} for text in texts]}) + "\n" for index, texts in replies.items()))  # fmt: skip

    first = replayed(recorded, checkout, tmp_path / "first")
    assert {name: [turn["completion"] for turn in one["turns"]] for name, one in first.items()} == replies
    again = tmp_path / "again.jsonl"
    done = run_module(
        "scoring", "export", str(tmp_path / "first"), "--format", "pybench", "--output", str(again)
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert {next(iter(json.loads(line))) for line in again.read_text().splitlines()} == {"messages"}

    back = {one["sample_id"]: one for one in read_recorded(again)}
    second = replayed(again, checkout, tmp_path / "second")
    for name, one in first.items():
        assert actions(one) == actions(back[name]) == actions(second[name])
        assert one["stop_reason"] == back[name]["stop_reason"] == second[name]["stop_reason"]
        assert second[name]["messages"] == one["messages"]
        observed = [turn["observation"]["status"] for turn in one["turns"] if turn["observation"]]
        assert observed == [
            turn["observation"]["status"] for turn in back[name]["turns"] if turn["observation"]
        ]
    assert actions(first["3"]) == ["1 / 0", "6 * 7", None]
    assert back["2"]["turns"][0]["observation"]["outputs"][0]["text"] == "42\n"


def replayed(recording: Path, checkout: Path, run_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the trajectories of a replay, by sample."""
    ran = run_module(
        "runner", "--set", "benchmark=pybench", "--set", f"data.root={checkout}",
        "--model", f"replay:{recording}", "--run-dir", str(run_dir),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return {row["sample_id"]: row for row in read_trajectories(run_dir)}


def actions(row: dict[str, Any]) -> list[str | None]:
    return [turn["action"] for turn in row["turns"]]


@pytest.mark.data
@pytest.mark.parametrize("run", ["PyLlama3", "PyLlama3_only_codefb", "gpt4turbo"])
def test_recorded_runs_of_the_authors(kernelfleet_data: Path, run: str) -> None:
    """What upstream's runner wrote, read as ours and written as upstream's, is the same to the byte."""
    path = kernelfleet_data / "pybench/golden" / run / "trajectory.jsonl"
    rows = list(read_recorded(path))
    for one, line in zip(rows, path.read_text(encoding="utf-8").split("\n"), strict=False):
        if one["messages"]:
            asked = [message for message in one["messages"] if message["role"] == "user"][:2]
            sample = Sample(id=one["sample_id"], messages=tuple(asked), metadata=one["row"])
            assert pybench_line(one, sample) == line + "\n"
        else:  # bare lines are spaced otherwise
            assert one["row"] == json.loads(line)
    assert len(rows) > 140


def test_merged_messages_of_every_kind() -> None:
    """Turns are not looked at: what the model saw counts."""
    seen = opening_messages(SAMPLES["2"], "", merge=True)
    (line,) = exported(
        row(
            "2", messages=[*seen, {"role": "assistant", "content": seen[0]["content"]}], turns=[Turn("other")]
        )
    )
    assert line["messages"] == [*SAMPLES["2"].messages, {"role": "assistant", "content": seen[0]["content"]}]
