from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import orjson
import pytest

from runner.errors import JournalError
from scoring.errors import RunDirError
from scoring.score import Score
from scoring.store import load_benchmark, open_run, run_facts, write_atomically, write_scores

CONFIG = {"run_id": "r", "config_hash": "h", "config": {"benchmark": "jsonl:tasks.jsonl", "data": {}}}


def make_run(folder: Path, config: Any = CONFIG, **files: str) -> Path:
    """Write a run directory; keyword arguments are files, with `__` for the dot."""
    folder.mkdir()
    (folder / "config.json").write_bytes(orjson.dumps(config))
    for name, text in ({"trajectories__jsonl": "{}\n"} | files).items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    """A missing folder, one without a config and one without trajectories are each named."""
    with pytest.raises(RunDirError, match="gone is not a folder; give the run directory"):
        open_run(tmp_path / "gone")
    with pytest.raises(JournalError, match=r"config\.json.*is .* a run directory"):
        open_run(tmp_path)
    with pytest.raises(RunDirError, match=r"trajectories\.jsonl has no trajectories yet"):
        open_run(make_run(tmp_path / "empty", trajectories__jsonl=""))


def test_a_recorded_run_is_sent_to_its_command(tmp_path: Path) -> None:
    """PyBench's own file, or the folder that holds it; a run of ours may hold one beside its own."""
    file = tmp_path / "trajectory.jsonl"
    file.write_text("{}\n")
    for path in (file, tmp_path):
        with pytest.raises(RunDirError, match=r"trajectory\.jsonl is scored by `python -m scoring pybench`"):
            open_run(path)
    assert open_run(make_run(tmp_path / "run", trajectory__jsonl="{}\n")).run_id == "r"


@pytest.mark.parametrize(
    ("said", "trusted"), [({}, False), ({"trusted_code": True}, True), ({"trusted_code": "yes"}, False)]
)
def test_code_is_trusted_only_where_the_run_says_so(
    tmp_path: Path, said: dict[str, Any], trusted: bool
) -> None:
    """Only a run of the demo's own code marks itself so; an older run does not."""
    assert open_run(make_run(tmp_path / "run", CONFIG | said)).trusted_code is trusted


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "no config.benchmark"),
        ({"benchmark": "quickstart", "data": {"rooot": "x"}}, r"config\.data\.rooot: Extra inputs"),
        ({"benchmark": "quickstart", "data": 3}, r"config\.data: Input should be"),
    ],
)
def test_an_unusable_config_names_the_key(tmp_path: Path, config: Any, text: str) -> None:
    """What is wrong in config.json is said with its key."""
    with pytest.raises(RunDirError, match=text):
        open_run(make_run(tmp_path / "run", CONFIG | {"config": config}))


def test_failures_that_ended_well_are_history(tmp_path: Path) -> None:
    """Only attempts without a trajectory count as failed, each once; wall time comes from the events."""
    failures = "".join(
        json.dumps({"attempt": a, "stop_reason": "cancelled", "owner": "runner"}) + "\n"
        for a in ("a@1", "b@1", "b@1")
    )
    events = '{"at": 1, "event": "run_started"}\n{"at": 4, "event": "run_finished", "wall_s": 2.5}\n'
    run = open_run(make_run(tmp_path / "run", failures__jsonl=failures, events__log=events))
    facts = run_facts(run, {"a@1"}, n_duplicates=0)
    assert (facts.failures_by_owner, facts.wall_s, facts.run_id, facts.config_hash) == (
        {"runner": 1},
        2.5,
        "r",
        "h",
    )


def test_a_changed_benchmark_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Scores of other checks than those of the run are not given in silence."""
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": "a", "messages": [{"role": "user", "content": "?"}]}\n')
    config = CONFIG | {"config": {"benchmark": f"jsonl:{tasks}"}, "settings": {"benchmark.digest": "other"}}
    run = open_run(make_run(tmp_path / "run", config))
    with caplog.at_level(logging.WARNING):
        load_benchmark(run)
    assert "has changed since the run" in caplog.text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A file is replaced whole or not at all, and nothing else is left in the folder."""
    path = tmp_path / "x"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, None)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"old")]
    with pytest.raises(OSError, match=r"/absent/x cannot be written: No such file or directory; mend that"):
        write_atomically(tmp_path / "absent/x", b"new")


def test_scores_are_lines_of_json(tmp_path: Path) -> None:
    """A line has the fields of a score, null where there is no verdict."""
    score = Score("s", 1, None, 0.0, "it broke", "sandbox", "quickstart", "1", "default")
    line = write_scores(tmp_path, [score]).read_text()
    assert line.endswith("\n")
    assert json.loads(line) == {
        "sample_id": "s",
        "epoch": 1,
        "passed": None,
        "score": 0.0,
        "reason": "it broke",
        "owner": "sandbox",
        "scorer": "quickstart",
        "scorer_version": "1",
        "profile": "default",
    }
