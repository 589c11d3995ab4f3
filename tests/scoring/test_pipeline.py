from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench_data.sample import Sample
from scoring.errors import RunDirError
from scoring.judging import Context
from scoring.pipeline import score_trajectories
from scoring.quickstart import SCORER
from scoring.score import Score

SAMPLES = {name: Sample(id=name, messages=(), category=f"about {name}") for name in "abc"}
CONTEXT = Context(Path("run"), pool=None)


def line(sample_id: str, epoch: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a trajectory."""
    whole = {"sample_id": sample_id, "epoch": epoch, "turns": [{}], "stop_reason": "answer", "owner": "model"}
    return whole | changes


async def passing(sample: Sample, trajectory: Any, context: Context) -> Score:
    """Pass every attempt, each after a different number of loop turns."""
    for _ in range(ord("z") - ord(sample.id[0])):
        await asyncio.sleep(0)
    return Score(
        sample.id, trajectory["epoch"], True, 1.0, "", "model", SCORER.name, SCORER.version, "default"
    )


async def test_order_is_stable_and_the_first_attempt_counts() -> None:
    """Whatever order they end in, scores are by sample id and epoch; repeated attempts are counted."""
    lines = [line("c"), line("a", 10), line("a", 2), line("b"), line("a", 2, turns=[])]
    scored = await score_trajectories(lines, SAMPLES, passing, SCORER, CONTEXT, n_workers=3)
    assert [(a.score.sample_id, a.score.epoch, a.n_turns) for a in scored.attempts] == [
        ("a", 2, 1),
        ("a", 10, 1),
        ("b", 1, 1),
        ("c", 1, 1),
    ]
    assert scored.n_duplicates == 1
    assert scored.names == {"a@2", "a@10", "b@1", "c@1"}


async def test_what_the_model_cannot_answer_for_is_not_scored() -> None:
    """An end that is ours and a sample that is gone have no verdict; an end by the sample's fault has."""
    lines = [
        line("a", owner="sandbox", stop_reason="sandbox_error", error="it broke"),
        line("b", owner="sample"),
        line("gone"),
    ]
    scored = await score_trajectories(lines, SAMPLES, passing, SCORER, CONTEXT, n_workers=1)
    scores = [a.score for a in scored.attempts]
    assert [(s.passed, s.owner) for s in scores] == [(None, "sandbox"), (True, "model"), (None, "sample")]
    assert scores[0].reason == "ended by sandbox_error: it broke"
    assert scores[2].reason == "the benchmark no longer has this sample"
    assert scored.attempts[0].category == "about a"


async def test_no_more_trajectories_are_held_than_are_in_work() -> None:
    """A worker takes the next line when it is done with its own."""
    taken, done = 0, 0

    def lines() -> Iterator[Any]:
        nonlocal taken
        for epoch in range(1, 50):
            taken += 1
            yield line("a", epoch)

    async def counting(sample: Sample, trajectory: Any, context: Context) -> Score:
        nonlocal done
        assert taken - done <= 2
        result = await passing(sample, trajectory, context)
        done += 1
        return result

    scored = await score_trajectories(lines(), SAMPLES, counting, SCORER, CONTEXT, n_workers=2)
    assert len(scored.attempts) == 49


async def test_a_foreign_line_is_one_clear_error() -> None:
    """The error of one worker is raised as it is, not in a group."""
    with pytest.raises(RunDirError, match="trajectory 2: 'sample_id' is missing"):
        await score_trajectories([line("a"), {}, line("b")], SAMPLES, passing, SCORER, CONTEXT, n_workers=2)
