from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench_data.checks import parse_check
from bench_data.sample import Sample, SampleFile
from sandbox_pool import SandboxSpec, SandboxStartError
from scoring.judging import Context
from scoring.quickstart import score

CHECK = parse_check({"kind": "text_file", "path": "x.txt", "lines": ["a"]})
SHA256 = hashlib.sha256(b"a").hexdigest()
TRAJECTORY: dict[str, Any] = {
    "sample_id": "s",
    "epoch": 2,
    "turns": [{"completion": "Answer: 1", "action": None}],
    "stop_reason": "answer",
    "owner": "model",
    "artifacts": [{"path": "artifacts/s/2/x.txt", "bytes": 1, "sha256": SHA256}],
}


class NoPool:
    """A pool that cannot start a sandbox."""

    def acquire(self, spec: SandboxSpec) -> Any:
        """Fail."""
        raise SandboxStartError("no kernel today")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run directory with the artifact of TRAJECTORY."""
    folder = tmp_path / "run" / "artifacts" / "s" / "2"
    folder.mkdir(parents=True)
    (folder / "x.txt").write_text("a")
    return tmp_path / "run"


def sample(check: Any) -> Sample:
    """Return a sample with a check."""
    return Sample(id="s", messages=(), check=check)


async def test_a_good_attempt_passes(run_dir: Path, make_pool: Any) -> None:
    """Artifacts are found in the run directory and judged."""
    result = await score(sample(CHECK), TRAJECTORY, Context(run_dir, make_pool()))
    assert (result.sample_id, result.epoch, result.passed, result.score) == ("s", 2, True, 1.0)
    assert (result.owner, result.scorer, result.profile) == ("model", "quickstart", "default")


async def test_a_program_is_run_beside_its_inputs_and_workspace(
    run_dir: Path, make_pool: Any, tmp_path: Path
) -> None:
    """A module that reads an input file and the sample's workspace is scored as it ran."""
    source = b"def f(): return open('data/a').read() + open('workspace/b').read()"
    (run_dir / "artifacts/s/2/m.py").write_bytes(source)
    entry = {"path": "artifacts/s/2/m.py", "bytes": len(source), "sha256": hashlib.sha256(source).hexdigest()}
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/b").write_text("b")
    check = {"kind": "python_calls", "path": "m.py", "calls": [{"function": "f", "returns": "ab"}]}
    asked = replace(
        sample(parse_check(check)),
        files=(SampleFile("data/a", lambda: b"a"),),
        workspace=tmp_path / "repo",
    )
    result = await score(asked, TRAJECTORY | {"artifacts": [entry]}, Context(run_dir, make_pool()))
    assert (result.passed, result.reason) == (True, "as expected")


async def test_an_answer_needs_no_sandbox(run_dir: Path) -> None:
    """Checks of the final reply are judged without a lease; without a reply they fail."""
    check = parse_check({"kind": "answer_number", "value": 1})
    context = Context(run_dir, NoPool())
    assert (await score(sample(check), TRAJECTORY, context)).passed
    ended = await score(sample(check), TRAJECTORY | {"stop_reason": "max_turns"}, context)
    assert (ended.passed, ended.score) == (False, 0.0)
    assert ended.reason == "no final answer (stop_reason: max_turns)"


async def test_trouble_of_ours_is_not_scored(run_dir: Path, make_pool: Any) -> None:
    """No check, a changed artifact and a broken sandbox each leave the verdict open, with an owner."""
    no_check = await score(sample(None), TRAJECTORY, Context(run_dir, NoPool()))
    broken = await score(sample(CHECK), TRAJECTORY, Context(run_dir, NoPool()))
    (run_dir / "artifacts/s/2/x.txt").write_text("b")
    changed = await score(sample(CHECK), TRAJECTORY, Context(run_dir, make_pool()))
    assert [each.passed for each in (no_check, broken, changed)] == [None] * 3
    assert [each.owner for each in (no_check, broken, changed)] == ["sample", "sandbox", "runner"]
    assert "artifact x.txt changed since the run" in changed.reason
