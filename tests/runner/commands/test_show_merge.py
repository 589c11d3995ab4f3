"""Looking at a run, and making one of its shards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from runner.__main__ import main
from runner.encoding import encode_line
from runner.journal import Journal, read_config, read_events, read_failures, read_inflight, read_trajectories
from runner.records import Owner, StopReason, Turn
from tests.runner.factories import append, trajectory

SETTINGS = {"benchmark": "jsonl", "benchmark.digest": "d", "limits.max_turns": 10}


def make_run(
    path: Path, *finished: str, failed: tuple[str, ...] = (), unfinished: tuple[str, ...] = (), **config: Any
) -> Path:
    """Write a run directory as the runner does."""

    async def write() -> None:
        with Journal(path) as journal:
            settings = SETTINGS | config
            journal.write_config({"run_id": path.name, "config_hash": "h", "settings": settings, "n_attempts": 9,
                                  "config": {"benchmark": "jsonl:x", "model": {"client": "nop"}}})  # fmt: skip
            for name in finished:
                folder, prefix = journal.artifacts_dir(name, 1)
                folder.mkdir(parents=True)
                (folder / "out.txt").write_text(name)
                digest = hashlib.sha256(name.encode()).hexdigest()
                artifact = {
                    "path": f"{prefix}/out.txt",
                    "bytes": len(name),
                    "sha256": digest,
                    "problem": None,
                }
                turn = Turn("```python\n1\n```", action="print(1)", observation={
                    "status": "ok", "duration_s": 0.5, "outputs": [{"type": "stream", "name": "stdout", "text": f"{path.name} \x1b[31m1\n"}]})  # fmt: skip
                await append(journal, trajectory(name, artifacts=[artifact], turns=[turn, Turn("Answer: 1")]))
            for name in failed:
                row = trajectory(
                    name, stop_reason=StopReason.ENGINE_ERROR, owner=Owner.ENGINE, error="down\nfor good"
                )
                await journal.append_failure(encode_line(row))
            for name in unfinished:
                log = journal.turn_log(f"{name}@1", {"run_id": "r"})
                log.append(
                    encode_line(
                        {"turn": {"completion": "half"}, "messages": [], "artifacts": [], "working_s": 1.0}
                    )
                )
            journal.event("run_finished", wall_s=2.0)

    asyncio.run(write())
    return path


def show(*arguments: object) -> int:
    return main(["show", *map(str, arguments)])


def test_show_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it is, how far it is, what failed and what is unfinished."""
    run = make_run(tmp_path / "r", "a", "b", failed=("c", "a"), unfinished=("d",))
    assert show(run) == 0
    text = capsys.readouterr().out
    for part in ("benchmark jsonl:x, model nop", "2 of 9 attempts finished: 2 answer", "4 turns",
                 "1 attempts failed by our fault", "c@1: engine_error (engine) down", "d@1: 1 turn\n", "1 run_finished"):  # fmt: skip
        assert part in text


def test_show_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Turn by turn, with nothing that a terminal would obey; by sample, by attempt, failed or unfinished."""
    run = make_run(tmp_path / "r", "a", failed=("c",), unfinished=("d",))
    assert show(run, "a@1") == 0
    text = capsys.readouterr().out
    for part in (
        "a@1: answer (owner model)",
        "print(1)",
        "observation: ok, 0.50 s",
        r"r \x1b[31m1",
        "Answer: 1",
        "artifacts/a/1/out.txt",
    ):
        assert part in text
    assert "\x1b" not in text
    assert show(run, "c") == 0
    assert "error: down" in capsys.readouterr().out
    assert show(run, "d") == 0
    text = capsys.readouterr().out
    assert text.startswith("d@1: unfinished\n")
    assert "half" in text


def test_show_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An attempt that is not there, with those that are near; a folder that is no run."""
    run = make_run(tmp_path / "r", "alpha")
    assert show(run, "alpah") == 1
    assert "holds nothing of 'alpah' (1 attempts; near: alpha@1)" in capsys.readouterr().err
    assert show(tmp_path) == 1
    assert "is " in capsys.readouterr().err


def merge(*arguments: object) -> int:
    return main(["merge", *map(str, arguments)])


def test_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each attempt once, the first shard's; failures and turns only of what is not finished anywhere."""
    one = make_run(tmp_path / "one", "a", "b", failed=("c", "x"), unfinished=("d",))
    two = make_run(tmp_path / "two", "b", "c", failed=("x",), unfinished=("a", "d", "e"))
    with (two / "trajectories.jsonl").open("ab") as file:
        file.write(b'{"torn')
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    assert merge(one, two, "-o", out) == 0
    assert "3 trajectories of 2 runs" in capsys.readouterr().out
    rows = {row["attempt"]: row for row in read_trajectories(out)}
    assert set(rows) == {"a@1", "b@1", "c@1"}
    assert "one" in rows["b@1"]["turns"][0]["observation"]["outputs"][0]["text"]
    for row in rows.values():
        (artifact,) = row["artifacts"]
        assert hashlib.sha256((out / artifact["path"]).read_bytes()).hexdigest() == artifact["sha256"]
    assert [row["attempt"] for row in read_failures(out)] == ["x@1", "x@1"]
    assert [unfinished.attempt for unfinished in read_inflight(out)] == ["d@1", "e@1"]
    assert {event["shard"] for event in read_events(out)} == {"one", "two"}
    config = read_config(out)
    assert config["run_id"] not in ("one", "two")
    assert config["merged_from"] == [str(one), str(two)]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    with Journal(out) as journal:
        assert journal.done == {"a@1", "b@1", "c@1"}
        assert journal.unfinished == {"d@1", "e@1"}


FIRST, REST, ALL = {"limit": 2}, {"samples": "b*"}, dict[str, Any]()


@pytest.mark.parametrize(
    ("shards", "n_attempts"),
    [
        pytest.param([(ALL, "a", "x"), (ALL, "b", "x")], 9, id="one-plan"),
        pytest.param([(FIRST, "a", "x"), (REST, "b", "c")], 18, id="apart"),
        pytest.param([(ALL, "a", "x"), (FIRST, "b", "x")], 17, id="one-attempt-in-both"),
        pytest.param([(FIRST, "a", "x"), (ALL, "b", "x"), (FIRST, "c", "d")], 17, id="one-plan-twice"),
    ],
)
def test_merge_knows_how_many_attempts_there_are(
    tmp_path: Path, shards: list[tuple[dict[str, Any], str, str]], n_attempts: int
) -> None:
    """Plans of other samples add up, less what is known to be in several. Each is of 9 attempts here."""
    paths = []
    for number, (choice, finished, failed) in enumerate(shards):
        path = make_run(tmp_path / str(number), finished, failed=(failed,))
        config = read_config(path)
        (path / "config.json").write_text(json.dumps(config | {"config": config["config"] | choice}))
        paths.append(path)
    assert merge(*paths, "-o", tmp_path / "out") == 0
    assert read_config(tmp_path / "out")["n_attempts"] == n_attempts


def test_merge_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another configuration, a destination in use, a shard that runs: nothing is written."""
    one, two = make_run(tmp_path / "one", "a"), make_run(tmp_path / "two", "b", **{"limits.max_turns": 3})
    assert merge(one, two, "-o", tmp_path / "out") == 2
    assert "two is no shard of the run in" in (error := capsys.readouterr().err)
    assert "limits.max_turns is 3 there and 10 here" in error
    assert merge(one, tmp_path / "two/../one", "-o", tmp_path / "out") == 2
    assert "one is named twice" in capsys.readouterr().err
    assert merge(one, "-o", two) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    with Journal(one):
        assert merge(one, "-o", tmp_path / "out") == 1
    assert f"on {socket.gethostname()}" in capsys.readouterr().err
    assert merge(tmp_path / "none", "-o", tmp_path / "out") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_merged_run_is_scored_as_any_other(tmp_path: Path) -> None:
    """Scoring finds in it what it needs."""
    from scoring.store import open_run

    out = tmp_path / "out"
    assert merge(make_run(tmp_path / "one", "a"), make_run(tmp_path / "two", "b"), "-o", out) == 0
    run = open_run(out)
    assert (run.benchmark, run.n_attempts) == ("jsonl:x", 9)
    assert json.loads((out / "config.json").read_text())["settings"] == SETTINGS
