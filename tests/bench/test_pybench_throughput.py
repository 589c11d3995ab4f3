"""Both loops that are compared execute the same cells, and their CPU is divided rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench_data import DataOptions, load
from runner.protocols import Fenced
from runner.protocols.base import Action
from tests.bench.nbclient_loop import code_of
from tests.bench.pybench_throughput import (
    Job,
    Replay,
    replay_ours,
    replay_theirs,
    summary,
    table,
    with_clock,
    write_recording,
)
from tests.bench.whole_cost import Memory, counting_mount

BURN_S = 0.4
BURN = f"import time\nend = time.process_time() + {BURN_S}\nwhile time.process_time() < end: pass"


def block(code: str) -> str:
    return f"Now:\n```python\n{code}\n```\n"


def recorded(index: str, *replies: str) -> dict[str, Any]:
    asked = [{"role": "system", "content": "code"}, {"role": "user", "content": "do"}]
    turns = [
        message
        for reply in replies
        for message in ({"role": "assistant", "content": reply}, {"role": "user", "content": "seen"})
    ]
    return {"index": index, "messages": [*asked, *turns]}


RECORDING = (
    recorded("2", block("print(open('data/a.csv').read())"), block("1 / 0"), "Done."),
    recorded("3", block(BURN), block("open('output/3.txt', 'w').write(str(end))"), "Done."),
    recorded("4", "No code at all."),
    {"index": "5"},
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    root, home = tmp_path / "root", tmp_path / "home"
    (root / "data/meta").mkdir(parents=True)
    (home / "tmp").mkdir(parents=True)
    tasks = [{"index": row["index"], "user": "do", "file_paths": ["./data/a.csv"]} for row in RECORDING]
    (root / "data/meta/task.json").write_text(json.dumps(tasks))
    (root / "data/a.csv").write_text("x\n1\n")
    original, clocked = tmp_path / "original.jsonl", tmp_path / "clocked.jsonl"
    original.write_text("".join(json.dumps(row) + "\n" for row in RECORDING))
    samples = load("pybench", DataOptions(root=root)).samples
    return Job(root, write_recording(original, samples, clocked), clocked, home)


@pytest.mark.kernel
@pytest.mark.timeout(180)
@pytest.mark.skipif(counting_mount() is None, reason="no control group can be made here")
def test_both_execute_the_same_cells(job: Job, tmp_path: Path) -> None:
    """As many of them, to the same end; what they burn is inside, what kernels and loops take is outside."""
    folders = {name: tmp_path / name for name in ("ours", "theirs")}
    for folder in folders.values():
        folder.mkdir()
    ours = replay_ours(job, folders["ours"], 0.25)
    theirs = replay_theirs(job, folders["theirs"], 0.25)

    assert [sample.id for sample in job.samples] == ["2", "3", "4"]
    for replay in (ours, theirs):
        assert replay.n_cells == 4
        assert BURN_S <= replay.cells_cpu_s < BURN_S + 0.5
        assert replay.outside_cpu_s > 0.3  # not less than an interpreter and a kernel take to start
        assert replay.memory is not None
        assert replay.memory.all_bytes > 50 * 2**20
    assert (folders["ours"] / "run/artifacts/3/1/output/3.txt").exists()
    assert (folders["theirs"] / "output/3.txt").exists()
    seen = [
        [message["content"] for message in row["messages"]]
        for row in lines(folders["theirs"] / "trajectory.jsonl")
    ]
    assert any("x\n1\n" in text for texts in seen for text in texts)
    assert any("ZeroDivisionError" in text for texts in seen for text in texts)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@given(st.lists(st.sampled_from(["```python", "```", "x = 1", "\n", " ", "`"])).map("".join))
@example("```python\nx\n```\n```python\ny\n```")
def test_code_is_found_where_ours_finds_it(reply: str) -> None:
    """Else the two would not replay the same."""
    actions = Fenced(None).parse(reply, "stop").actions
    code = code_of(reply)
    assert actions == ((Action(code),) if code else ())


def test_the_clock_goes_into_what_is_executed_and_nowhere_else() -> None:
    """Into the first block of a reply that has code; other messages are as they were."""
    row = recorded("2", block("a") + block("b"), "```python\nno end", "Done.")
    first, *others = [message["content"] for message in with_clock(row)["messages"][2::2]]
    assert code_of(first).endswith("\na")
    assert "clock_cell()" in code_of(first)
    assert first.endswith(block("b"))
    assert others == ["```python\nno end", "Done."]
    assert with_clock(row)["messages"][1::2] == row["messages"][1::2]


def test_the_table_compares_medians() -> None:
    """Timed runs by their median, memory by the run that looked at it, and the floor of our cells."""

    def replays(wall_s: float, mib: int) -> list[Replay]:
        timed = [Replay(wall_s * n, 10.0, 4.0, 1.0, 7, None) for n in (1, 2, 30)]
        return [*timed, Replay(99.0, 99.0, 9.0, 9.0, 7, Memory(mib << 20, 1 << 20, (mib - 1) << 20))]

    text = table(summary(replays(2, 100)), summary(replays(8, 400)), 2)
    assert "| wall time | 4 s | 16 s | 0.25 | at most 0.50 |" in text
    assert "| CPU outside the cells | 6 s | 6 s | 1.00 | at most 0.10 |" in text
    assert "| peak memory | 100 MiB | 400 MiB | 0.25 | at most 0.50 |" in text
    assert "on 2 cores: 2 s; ours takes 2.00 times that" in text
