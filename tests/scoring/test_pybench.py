"""PyBench's scorer: a run of ours by both profiles, one of upstream's form by the command, and bad input."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from bench_data.sample import Sample
from sandbox_pool import PoolConfig
from scoring.__main__ import main
from scoring.errors import RunDirError
from scoring.pybench.scorer import last_message, output_folders
from scoring.pybench.tasks import load_checks

for module in ("cv2", "mutagen"):
    pytest.importorskip(module, reason="what PyBench needs is not installed: make install-pybench")

N_TASKS = len(load_checks())
TASKS = {"16": "data/16.xlsx", "21": "data/21.csv", "22": None, "67": None, "68": None, "138": None}
"""Of the checkout here, and their inputs: that of 21 is missing."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small checkout."""
    root = tmp_path / "root"
    (root / "data/meta").mkdir(parents=True)
    rows = [
        {
            "index": index,
            "user": "?",
            "file_paths": [f"./{path}"] if path else [],
            "category1": "文本挖掘\n（x）",
        }
        for index, path in TASKS.items()
    ]
    (root / "data/meta/task.json").write_text(json.dumps(rows))
    (root / "data/16.xlsx").write_bytes(b"x")
    return root


@pytest.fixture
def _plain_sandboxes(make_pool: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both commands read files in plain processes."""
    plain = make_pool()

    class Pool:
        def __init__(self, config: PoolConfig, *, trusted_code: bool) -> None:
            self.config = config
            self.acquire = plain.acquire

        async def __aenter__(self) -> Pool:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    for name in ("score", "pybench"):
        monkeypatch.setattr(f"scoring.commands.{name}.SandboxPool", Pool)


def drawing() -> bytes:
    """Return a picture of some bars."""
    picture = Image.new("RGB", (640, 480), "white")
    pencil = ImageDraw.Draw(picture)
    for number in range(8):
        left = 40 + number * 70
        pencil.rectangle(
            (left, 440 - 40 * number, left + 50, 440), fill=(30 * number, 90, 200), outline="black"
        )
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def line(index: str, last: str, *, role: str = "assistant", epoch: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a line of the journal, as far as scoring reads it, that ends in this message."""
    is_answer = role == "assistant"
    return {
        "attempt": f"{index}@{epoch}",
        "sample_id": index,
        "epoch": epoch,
        "messages": [{"role": "user", "content": "?"}, {"role": role, "content": last}],
        "turns": [{"completion": last, "action": None if is_answer else "1"}],
        "stop_reason": "answer" if is_answer else "max_turns",
        "owner": "model",
        "artifacts": [],
    } | changes


@pytest.fixture
def write_run(tmp_path: Path, root: Path) -> Callable[..., Path]:
    """Return a function that writes a run directory of ours; task 67 has left its picture."""

    def write(lines: list[dict[str, Any]], *, epochs: int = 1) -> Path:
        run_dir = tmp_path / "run"
        picture, path = drawing(), "artifacts/67/1/output/67.png"
        (run_dir / path).parent.mkdir(parents=True)
        (run_dir / path).write_bytes(picture)
        entry = {"path": path, "bytes": len(picture), "sha256": hashlib.sha256(picture).hexdigest()}
        for row in lines:
            if row.get("attempt") == "67@1":
                row["artifacts"] = [entry]
        config = {"benchmark": "pybench", "epochs": epochs, "data": {"root": str(root), "version": "head"}}
        (run_dir / "config.json").write_text(
            json.dumps({"run_id": "r", "config_hash": "h", "config": config})
        )
        (run_dir / "trajectories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        return run_dir

    return write


@pytest.mark.usefixtures("_plain_sandboxes")
def test_a_run_of_ours_is_scored_by_both_profiles(
    write_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Upstream: one folder of output files and the last message; strict: an attempt's own, and its reply."""
    lines = [
        line("67", "Finished"),
        line("68", "Finished"),
        line("138", "there is no such x", role="user"),
        line("22", "", owner="sandbox", stop_reason="sandbox_error", error="no memory"),
        line("132", "excluded"),
        line("128", "needs the internet"),
    ]
    run_dir = write_run(lines)
    failure = {"attempt": "16@1", "stop_reason": "engine_error", "owner": "engine", "error": "refused"}
    (run_dir / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    assert main([str(run_dir)]) == 0

    scores = [json.loads(row) for row in (run_dir / "scores.jsonl").read_text().splitlines()]
    passed = {(score["profile"], score["sample_id"]): score["passed"] for score in scores}
    assert len(scores) == len(passed) == 2 * len(lines)
    assert [passed["upstream", index] for index in ("67", "68", "138", "22")] == [True, True, True, None]
    assert [passed["strict", index] for index in ("67", "68", "138", "22")] == [True, False, False, None]

    report = json.loads((run_dir / "report.json").read_text())
    assert report["details"]["data_version"] == "head"
    upstream, strict = (report["details"]["profiles"][name] for name in ("upstream", "strict"))
    assert (upstream["passed"], upstream["total"], len(upstream["results"])) == (3, N_TASKS, N_TASKS)
    n_excluded = sum(task.excluded is not None for task in load_checks().values())
    # Beside what is excluded: 21 has no input, 128 and 129 need the internet, 16 and 22 were lost by us, and
    # the inputs at head of six solve their tasks.
    assert strict["total"] == N_TASKS - n_excluded - 5 - 6
    lost = {"22": "ended by sandbox_error: no memory", "16": "ended by engine_error: refused"}
    assert upstream["apart"]["not the model's to lose"] == strict["apart"]["not the model's to lose"] == lost
    assert upstream["results"]["22"] == upstream["results"]["16"] == "Failed"
    assert not {"16", "21", "22", "128", "129"} & set(strict["results"])
    assert strict["reasons"]["68"] == "output/68.png: no such file; the attempt left none"
    assert (report["profile"], report["n_scored"], report["n_passed"]) == ("strict", 3, 1)
    assert (report["n_set_apart"], report["n_not_the_models"], report["n_not_scored"]) == (2, 2, 1)

    (row,) = [row for row in report["details"]["differences"] if row["task"] == "68"]
    assert row == {
        "task": "68",
        "reason": "upstream looks for task 67's picture",
        "upstream": "Pass",
        "strict": "Failed",
    }
    out = capsys.readouterr().out
    assert f"upstream: 3/{N_TASKS} = 2.1% (95 % interval " in out
    assert "  68: upstream Pass, strict Failed: upstream looks for task 67's picture" in out


@pytest.mark.usefixtures("_plain_sandboxes")
def test_each_epoch_has_a_folder_of_its_own(write_run: Callable[..., Path]) -> None:
    """A picture of the first epoch lets nothing pass in the second."""
    run_dir = write_run([line("67", "x"), line("68", "x"), line("68", "x", epoch=2)], epochs=2)
    assert main([str(run_dir)]) == 0
    upstream = json.loads((run_dir / "report.json").read_text())["details"]["profiles"]["upstream"]
    assert (upstream["results"]["68"], upstream["results"]["68@2"]) == ("Pass", "Failed")
    assert (upstream["passed"], upstream["total"]) == (2, 2 * N_TASKS)


@pytest.mark.usefixtures("_plain_sandboxes")
@pytest.mark.parametrize("key", ["sample_id", "epoch"])
def test_a_line_that_lacks_a_field_is_one_message(
    write_run: Callable[..., Path], capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """It is named before anything is merged, and nothing is written."""
    row = line("68", "x")
    del row[key]
    run_dir = write_run([line("67", "x"), row])
    assert main([str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert key in error
    assert "Traceback" not in error
    assert not (run_dir / "report.json").exists()


def test_the_later_file_of_a_name_is_kept(tmp_path: Path) -> None:
    """As in upstream's folder; an attempt's second line changes nothing."""

    def row(index: str, size: int) -> dict[str, Any]:
        return line(index, "x", artifacts=[{"path": f"artifacts/{index}/1/output/67.png", "bytes": size}])

    folders = output_folders([row("67", 1), row("68", 2), row("67", 3)], tmp_path)
    assert folders[1]["output/67.png"].file == tmp_path / "artifacts/68/1/output/67.png"
    with pytest.raises(RunDirError, match="trajectory 2: 'epoch' is missing"):
        output_folders([row("67", 1), {"sample_id": "68"}], tmp_path)


ASKED = {"role": "user", "content": "[INFO]The data is uploaded to ./data/x.csv\nHow many rows?"}


@pytest.mark.parametrize(
    ("messages", "n_turns", "text"),
    [
        ([ASKED, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], 1, "b"),
        ([ASKED, {"role": "assistant", "content": None}], 1, ""),
        ([ASKED, "no message"], 1, ""),
        ([{"role": "system", "content": "s"}, ASKED], 0, "How many rows?"),
        ([], 0, "error"),
        (None, 0, "error"),
    ],
)
def test_the_last_message_is_whoevers(messages: Any, n_turns: int, text: str) -> None:
    """Without a reply it is the task's own; a task without messages has the one that upstream gives it."""
    sample = Sample(id="2", messages=({"role": "user", "content": "How many rows?"},))
    assert last_message(sample, {"messages": messages, "turns": [{}] * n_turns}) == text


@pytest.fixture
def command(tmp_path: Path, root: Path) -> list[str]:
    """The words of the command for a run of upstream's form: task 67 has its picture, 138 says no."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output/67.png").write_bytes(drawing())
    rows: list[dict[str, Any]] = [
        {"index": index, "messages": [{"role": "assistant", "content": "no"}]}
        for index in ("67", "68", "138")
    ]
    rows[0]["messages"].insert(0, {"role": "system", "content": "You write code."})
    rows.append({"index": "22"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {"--trajectories": tmp_path / "t.jsonl", "--outputs": tmp_path / "output", "--data": root}
    return ["pybench", *(str(word) for pair in paths.items() for word in pair)]


@pytest.mark.usefixtures("_plain_sandboxes")
@pytest.mark.parametrize("profile", ["upstream", "strict"])
def test_the_json_of_upstreams_form(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str
) -> None:
    """The keys that other programs read; on standard output there is nothing else."""
    assert main([*command, "--profile", profile, "--json", "-"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    passing = {"67", "68", "138"} if profile == "upstream" else {"67"}
    assert passing <= {index for index, result in found["results"].items() if result == "Pass"}
    assert set(found["results"].values()) == {"Pass", "Failed"}
    assert found["results"]["22"] == "Failed"
    assert found["passed"] == list(found["results"].values()).count("Pass")
    assert found["total"] == len(found["results"]) == sum(g["total"] for g in found["by_group"].values())
    assert found["passed"] == sum(group["passed"] for group in found["by_group"].values())
    assert found["profile"] == profile
    assert found["data_version"] == "head"
    assert found["prompt"] == "the recording's (sha256 5f8bd9d494d5)"
    assert (found["total"] == N_TASKS) == (profile == "upstream")

    assert main([*command, "--profile", profile, "--json", str(tmp_path / "found.json")]) == 0
    assert (tmp_path / "found.json").read_text() == text
    out = capsys.readouterr().out
    assert out.startswith(
        f"system prompt: {found['prompt']}\n{profile}: {found['passed']}/{found['total']} = "
    )
    assert f"judges {len(found['differences'])} tasks by other rules" in out
    assert "  solved in its input: 2, 3, 4, 8, 10, 79 (0 of 0 passed)" in out


def no_root(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Take the list of tasks away."""
    (folder / "root/data/meta/task.json").unlink()


def no_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Take the recorded run away."""
    (folder / "t.jsonl").unlink()


def no_outputs(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Take the output files away."""
    (folder / "output/67.png").unlink()
    (folder / "output").rmdir()


def corrupt_line(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Break the file in its second line."""
    (folder / "t.jsonl").write_text('{"index": "67"}\n{"index": \n')


def foreign_line(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Let the file be another program's."""
    (folder / "t.jsonl").write_text('{"task": 67}\n')


def no_lines(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Let nothing have been recorded."""
    (folder / "t.jsonl").write_text("\n")


def our_run(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Let the output files be those of a run of ours."""
    for name in ("config.json", "trajectories.jsonl"):
        (folder / "output" / name).touch()


def no_packages(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a package away."""
    monkeypatch.setattr("scoring.commands.pybench.find_spec", lambda name: None if name == "cv2" else name)


@pytest.mark.usefixtures("_plain_sandboxes")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_root, "task.json is not there: data.root must be the folder that holds data/"),
        (no_file, "t.jsonl: No such file or directory; give the file of a recorded run"),
        (no_outputs, "output is not a folder; give the one that holds the output files"),
        (corrupt_line, "t.jsonl:2: not JSON"),
        (foreign_line, "t.jsonl:1: neither a trajectory of ours"),
        (no_lines, "t.jsonl has no trajectories: there is nothing to score"),
        (our_run, "output is a run of ours, which `python -m scoring"),
        (no_packages, "scoring PyBench needs opencv-python-headless: make install-pybench installs it"),
    ],
)
def test_bad_input_is_one_message(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    said: str,
) -> None:
    """It ends with code 2, names the thing, and prints no number."""
    spoil(tmp_path, monkeypatch)
    assert main([*command, "--json", str(tmp_path / "found.json")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("scoring: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "found.json").exists()
