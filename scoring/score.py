"""From verdicts to numbers: scores, their mean, its standard error, pass@k, the report. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REPORT_VERSION = 4
DEFAULT_MAX_FAILED_SHARE = 0.02
DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Score:
    """What one attempt is worth: a line of scores.jsonl."""

    sample_id: str
    epoch: int
    passed: bool | None
    """None when it was not the model's to lose, or could not be judged; then it is in no mean."""

    score: float
    """0 to 1; 0 where `passed` is None."""

    reason: str
    owner: str
    """Who has to answer for the result, as in the trajectory."""

    scorer: str
    scorer_version: str
    profile: str


@dataclass(frozen=True, slots=True)
class ScoredAttempt:
    """A score, and what the report says about its attempt."""

    score: Score
    category: str
    n_turns: int
    stop_reason: str
    is_set_apart: bool = False
    """By the benchmark's rules: it is in no rate, whatever its score."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Which rules the scores were made by."""

    name: str
    version: str
    profile: str = DEFAULT_PROFILE


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the run directory says, apart from its trajectories."""

    benchmark: str
    run_id: str
    config_hash: str
    failures_by_owner: Mapping[str, int]
    """Attempts without a trajectory that failed by our fault, or were cancelled (owner runner)."""

    n_duplicates: int
    n_attempts: int | None
    wall_s: float | None
    max_failed_share: float = DEFAULT_MAX_FAILED_SHARE
    n_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """The attempts of one category."""

    category: str
    n_passed: int
    n_scored: int
    n_not_scored: int
    pass_rate: float | None
    mean_turns: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The content of report.json."""

    report_version: int
    benchmark: str
    run_id: str
    config_hash: str
    scorer: str
    scorer_version: str
    profile: str
    n_trajectories: int
    n_scored: int
    n_passed: int
    n_not_scored: int
    not_scored_by_owner: Mapping[str, int]
    n_attempts: int | None
    """Attempts that the whole run is made of, those included that have no trajectory; None: not known."""

    n_failures: int
    """Attempts that have a line in failures.jsonl and no trajectory."""

    failures_by_owner: Mapping[str, int]
    """Of those: who had to answer for them; the runner for cancelled ones."""

    n_not_the_models: int
    """Attempts that were not the model's to lose: not scored, failed by our fault or cancelled."""

    failed_share: float
    """Of all attempts that ended, those that were not the model's to lose."""

    max_failed_share: float
    """Above it the headline number is withheld."""

    headline_withheld: str | None
    """Why `pass_rate` and `mean_score` are None although attempts were scored; None when they are not."""

    n_duplicates: int
    """Trajectories of an attempt that has an earlier one; they count nowhere else."""

    pass_rate: float | None
    """Of the scored attempts; None when there is none, or too many were not the model's to lose."""

    pass_rate_of_scored: float | None
    """The same, whatever was not scored."""

    mean_score: float | None
    standard_error: float | None
    """Of `pass_rate`, with the attempts of a sample as one cluster; None below two samples."""

    pass_at_k: Mapping[str, float]
    """By k; empty unless every sample has at least two scored attempts."""

    mean_turns: float | None
    wall_s: float | None
    trajectories_per_minute: float | None
    n_tokens: int
    cost: float | None
    """By the run's prices; None where it has none."""

    stop_reasons: Mapping[str, int]
    by_category: Sequence[CategoryReport]
    n_set_apart: int = 0
    """Attempts that the benchmark's rules leave out of every rate; neither scored nor lost."""

    details: Mapping[str, Any] | None = None
    """What the benchmark's own rules say beside; None where it has none."""


def make_report(
    attempts: Sequence[ScoredAttempt], scorer: Scorer, run: RunFacts, categories: Iterable[str] = ()
) -> Report:
    """Return the report on a run; `categories` gives the order in which they are shown."""
    counted = [attempt.score for attempt in attempts if not attempt.is_set_apart]
    scored = [score for score in counted if score.passed is not None]
    not_scored = Counter(score.owner for score in counted if score.passed is None)
    stop_reasons = Counter(attempt.stop_reason for attempt in attempts)
    order = dict.fromkeys([*categories, *sorted({attempt.category for attempt in attempts})])
    groups = {name: [attempt for attempt in attempts if attempt.category == name] for name in order}
    n_failures = sum(run.failures_by_owner.values())
    n_not_the_models = not_scored.total() + n_failures
    n_ended = len(counted) + n_failures
    share = n_not_the_models / n_ended if n_ended else 0.0
    withheld = headline_withheld(n_not_the_models, n_ended, run.max_failed_share) if scored else None
    pass_rate = mean([float(score.passed is True) for score in scored])
    return Report(
        report_version=REPORT_VERSION,
        benchmark=run.benchmark,
        run_id=run.run_id,
        config_hash=run.config_hash,
        scorer=scorer.name,
        scorer_version=scorer.version,
        profile=scorer.profile,
        n_trajectories=len(attempts),
        n_scored=len(scored),
        n_passed=sum(score.passed is True for score in scored),
        n_not_scored=not_scored.total(),
        not_scored_by_owner=dict(sorted(not_scored.items())),
        n_attempts=run.n_attempts,
        n_failures=n_failures,
        failures_by_owner=dict(sorted(run.failures_by_owner.items())),
        n_not_the_models=n_not_the_models,
        failed_share=share,
        max_failed_share=run.max_failed_share,
        headline_withheld=withheld,
        n_duplicates=run.n_duplicates,
        pass_rate=None if withheld else pass_rate,
        pass_rate_of_scored=pass_rate,
        mean_score=None if withheld else mean([score.score for score in scored]),
        standard_error=clustered_standard_error(_passes_by_sample(scored)),
        pass_at_k=_all_pass_at_k(_passes_by_sample(scored)),
        mean_turns=mean([attempt.n_turns for attempt in attempts]),
        wall_s=run.wall_s,
        trajectories_per_minute=60 * len(attempts) / run.wall_s if run.wall_s else None,
        n_tokens=run.n_tokens,
        cost=run.cost,
        stop_reasons=dict(sorted(stop_reasons.items())),
        by_category=[_category(name, group) for name, group in groups.items() if group],
        n_set_apart=len(attempts) - len(counted),
    )


def headline_withheld(n_not_the_models: int, n_ended: int, max_share: float) -> str | None:
    """Return why a run has no headline number; None when it has one.

    A mean over what is left says little where much was lost, and least where the lost attempts were the
    long ones.
    """
    if not n_ended or n_not_the_models / n_ended <= max_share:
        return None
    share = n_not_the_models / n_ended
    return (
        f"{n_not_the_models} of {n_ended} attempts ({share:.1%}) were not the model's to lose, more than "
        f"{max_share:.1%}: run the same command again to go on with them, or allow more: --max-failed-share"
    )


def _category(name: str, attempts: Sequence[ScoredAttempt]) -> CategoryReport:
    counted = [attempt.score.passed for attempt in attempts if not attempt.is_set_apart]
    passes = [passed for passed in counted if passed is not None]
    return CategoryReport(
        category=name,
        n_passed=sum(passes),
        n_scored=len(passes),
        n_not_scored=len(counted) - len(passes),
        pass_rate=mean(passes),
        mean_turns=mean([attempt.n_turns for attempt in attempts]),
    )


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of nothing. The order of the values does not matter."""
    return math.fsum(values) / len(values) if values else None


def clustered_standard_error(clusters: Mapping[str, Sequence[bool]]) -> float | None:
    """Return the standard error of the mean over all values, where those of a cluster belong together.

    With one value in each cluster this is the usual standard error of a mean. None below two clusters.
    """
    n_values = sum(map(len, clusters.values()))
    if len(clusters) < 2:
        return None
    centre = math.fsum(map(sum, clusters.values())) / n_values
    residuals = math.fsum((sum(values) - len(values) * centre) ** 2 for values in clusters.values())
    return math.sqrt(residuals * len(clusters) / (len(clusters) - 1)) / n_values


def pass_at_k(n_attempts: int, n_passed: int, k: int) -> float:
    """Return the chance that at least one of k attempts drawn from these passes.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021, https://arxiv.org/abs/2107.03374.
    """
    assert 1 <= k <= n_attempts, f"k is {k}, there are {n_attempts} attempts"
    return 1.0 - math.comb(n_attempts - n_passed, k) / math.comb(n_attempts, k)


def _all_pass_at_k(passes: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """Return the mean of pass@k over samples for k = 1, 2, 4, ... and the most that all samples have."""
    n_attempts = min(map(len, passes.values()), default=0)
    if n_attempts < 2:
        return {}
    ks = sorted({1 << power for power in range(n_attempts.bit_length())} | {n_attempts})
    return {
        str(k): math.fsum(pass_at_k(len(p), sum(p), k) for p in passes.values()) / len(passes) for k in ks
    }


def _passes_by_sample(scores: Iterable[Score]) -> dict[str, list[bool]]:
    passes: dict[str, list[bool]] = {}
    for score in scores:
        passes.setdefault(score.sample_id, []).append(score.passed is True)
    return passes


def run_wall_s(events: Iterable[Mapping[str, Any]]) -> float | None:
    """Return how long a run took, in seconds, its resumes added up; None when no event says so.

    A part that was killed lasts from its start to its last event.
    """
    parts: list[tuple[float, float]] = []  # (started at, lasted)
    for event in events:
        at = event.get("at")
        if not isinstance(at, int | float):
            continue
        if event.get("event") == "run_started" or not parts:
            parts.append((at, 0.0))
        wall_s = event.get("wall_s") if event.get("event") == "run_finished" else None
        started_at, lasted_s = parts[-1]
        lasted_s = wall_s if isinstance(wall_s, int | float) else max(lasted_s, at - started_at)
        parts[-1] = (started_at, lasted_s)
    return math.fsum(lasted_s for _, lasted_s in parts) if parts else None
