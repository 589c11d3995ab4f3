"""Scores the trajectories of a run, several at a time, holding no more of them than are in work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench_data.sample import Sample
from scoring.judging import Context, not_scored
from scoring.score import Score, ScoredAttempt, Scorer
from scoring.trajectory import Trajectory, require_fields

ScoreFunction = Callable[[Sample, Trajectory, Context], Awaitable[Score]]

SCORABLE_OWNERS = ("model", "sample")


@dataclass(slots=True)
class Scored:
    """What a pass over the trajectories has found."""

    attempts: list[ScoredAttempt] = field(default_factory=list)
    """By sample id, then epoch."""

    n_duplicates: int = 0
    """Trajectories of attempts that had one already; the first one counts."""

    n_tokens: int = 0
    cost: float | None = None
    """By the run's prices; None where it has none."""

    def add_usage(self, usage: Any) -> None:
        """Add what an attempt has used, as its line says it."""
        if not isinstance(usage, Mapping):
            return
        n_tokens, cost = usage.get("total_tokens"), usage.get("cost")
        self.n_tokens += n_tokens if isinstance(n_tokens, int) else 0
        if isinstance(cost, int | float):
            self.cost = (self.cost or 0.0) + cost

    @property
    def names(self) -> set[str]:
        """The attempts, by name."""
        return {f"{a.score.sample_id}@{a.score.epoch}" for a in self.attempts}


def default_n_workers() -> int:
    """Return how many trajectories are scored at a time: one a core, four at most."""
    return min(4, os.cpu_count() or 1)


async def score_trajectories(
    trajectories: Iterable[Any],
    samples: Mapping[str, Sample],
    score: ScoreFunction,
    scorer: Scorer,
    context: Context,
    n_workers: int,
) -> Scored:
    """Score every attempt once. Safe to cancel.

    `scorer` names the rules in the scores of attempts that are not handed to `score`.

    Raises:
        RunDirError: a trajectory lacks what scoring needs; names the line.
        JournalError: from the reader behind `trajectories`.
    """
    scored = Scored()
    source = _first_of_each(trajectories, scored)

    async def work() -> None:
        for trajectory in source:  # shared by all workers
            scored.attempts.append(await _score_one(trajectory, samples, score, scorer, context))

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(n_workers):
                workers.create_task(work())
    except ExceptionGroup as group:
        # One unreadable line stops all workers; its message is what the user needs.
        raise group.exceptions[0] from group
    scored.attempts.sort(key=lambda attempt: (attempt.score.sample_id, attempt.score.epoch))
    return scored


def _first_of_each(trajectories: Iterable[Any], scored: Scored) -> Iterator[Trajectory]:
    seen: set[tuple[str, int]] = set()
    for number, line in enumerate(trajectories, start=1):
        trajectory = require_fields(line, number)
        attempt = (trajectory["sample_id"], trajectory["epoch"])
        if attempt in seen:
            scored.n_duplicates += 1
            continue
        seen.add(attempt)
        scored.add_usage(trajectory.get("usage"))
        yield trajectory


async def _score_one(
    trajectory: Trajectory,
    samples: Mapping[str, Sample],
    score: ScoreFunction,
    scorer: Scorer,
    context: Context,
) -> ScoredAttempt:
    sample = samples.get(trajectory["sample_id"])
    owner = trajectory["owner"]
    if owner not in SCORABLE_OWNERS:
        reason = f"ended by {trajectory['stop_reason']}: {trajectory.get('error') or 'no error text'}"
        result = not_scored(trajectory, reason, owner, scorer)
    elif sample is None:
        result = not_scored(trajectory, "the benchmark no longer has this sample", "sample", scorer)
    else:
        result = await score(sample, trajectory, context)
    return ScoredAttempt(
        score=result,
        category=sample.category if sample else "",
        n_turns=len(trajectory["turns"]),
        stop_reason=trajectory["stop_reason"],
    )
