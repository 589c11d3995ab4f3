"""PyBench's own numbers: by profile, with the denominators that each has. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from bench_data.sample import Sample
from scoring.pybench.tasks import Profile, TaskChecks
from scoring.score import Score, ScoredAttempt, mean

PASS, FAILED = "Pass", "Failed"
"""Upstream's words."""

SOLVED = "its input at head is solved already; data.version=pristine has it as it was"
NOT_THE_MODELS = "not the model's to lose"

Attempt = tuple[str, int]
"""A task's index and an epoch."""

Z_95 = 1.959964
UPSTREAM_MAX_TURNS = 10
"""What upstream counts for a task that failed."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many passed."""

    passed: int
    total: int
    pass_rate: float | None
    interval_95: tuple[float, float] | None
    """Wilson's, for this many independent attempts."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is known of PyBench's tasks on this machine."""

    samples: Mapping[str, Sample]
    checks: Mapping[str, TaskChecks]
    missing_inputs: Mapping[str, str]
    """Tasks whose inputs are not all there, and which."""

    data_version: Literal["head", "pristine"] = "pristine"
    """Of the inputs that the run had."""

    def group(self, index: str) -> str:
        """Return the paper's group of a task."""
        return self.samples[index].category if index in self.samples else ""

    def category1(self, index: str) -> str:
        """Return upstream's category of a task, less its package hints."""
        row = self.samples[index].metadata if index in self.samples else {}
        return str(row.get("category1", "")).split("\n")[0].strip()

    @property
    def solved_already(self) -> set[str]:
        """Tasks that a copy of their input solves."""
        if self.data_version == "pristine":
            return set()
        return {index for index, task in self.checks.items() if task.is_solved_at_head}

    @property
    def needs_internet(self) -> set[str]:
        """Tasks that no sandbox without a network can do."""
        return {index for index, task in self.checks.items() if task.needs_internet}


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """A run by one profile."""

    profile: Profile
    denominator: str
    """What `total` counts, in words."""

    passed: int
    total: int
    pass_rate: float | None
    interval_95: tuple[float, float] | None
    results: Mapping[str, str]
    """Of what is counted: by task, or by `task@epoch` from the second epoch on."""

    by_group: Mapping[str, Share]
    by_category1: Mapping[str, Share]
    apart: Mapping[str, Mapping[str, str]]
    """Why a task, or one attempt of it, is not, or not fairly, counted: reason by name as in `results`.
    `upstream` counts them nevertheless."""

    apart_passed: Mapping[str, Share]
    average_turns: Mapping[str, float | None]
    """`plain`: assistant messages per attempt; `upstream`: 10 for each that failed, as upstream counts. It
    asks its judge for that, this report the checks."""

    reasons: Mapping[str, str]
    """Why each task that is counted failed."""


def profile_report(
    profile: Profile,
    attempts: Sequence[ScoredAttempt],
    tasks: Tasks,
    n_epochs: int,
    failures: Mapping[Attempt, str] = MappingProxyType({}),
) -> ProfileReport:
    """Return the numbers of a run by one profile; every task counts in each of `n_epochs`.

    Args:
        profile: by whose rules.
        attempts: what was scored by them.
        tasks: all there are.
        n_epochs: how often each was to be attempted.
        failures: attempts that failed by our fault, and why; those that were scored since do not count.
    """
    scores = {(attempt.score.sample_id, attempt.score.epoch): attempt.score for attempt in attempts}
    of_tasks = _tasks_apart(profile, tasks)
    lost = _not_the_models(scores, failures)
    every = [(index, epoch) for epoch in range(1, n_epochs + 1) for index in tasks.checks]
    wanted = every if profile == "upstream" else _fair(every, of_tasks, lost)
    passed = {key: key in scores and scores[key].passed is True for key in wanted}
    whole = _share(passed.values())
    return ProfileReport(
        profile=profile,
        denominator=_denominator(profile, tasks, len(every) - len(wanted), n_epochs),
        passed=whole.passed,
        total=whole.total,
        pass_rate=whole.pass_rate,
        interval_95=whole.interval_95,
        results={_name(*key): PASS if is_passed else FAILED for key, is_passed in passed.items()},
        by_group=_by(tasks.group, passed),
        by_category1=_by(tasks.category1, passed),
        apart={**of_tasks, NOT_THE_MODELS: {_name(*key): reason for key, reason in lost.items()}},
        apart_passed={
            title: _share(score.passed is True for (index, _), score in scores.items() if index in found)
            for title, found in of_tasks.items()
        }
        | {NOT_THE_MODELS: _share(False for _ in lost)},
        average_turns=_average_turns(attempts),
        reasons={
            _name(*key): scores[key].reason if key in scores else failures.get(key, "no trajectory")
            for key, is_passed in passed.items()
            if not is_passed
        },
    )


def tasks_apart(report: ProfileReport) -> set[str]:
    """Return the tasks that a profile's rules set apart, whatever came of an attempt."""
    return {index for title, found in report.apart.items() if title != NOT_THE_MODELS for index in found}


def _tasks_apart(profile: Profile, tasks: Tasks) -> dict[str, dict[str, str]]:
    apart: dict[str, dict[str, str]] = {
        "missing inputs": dict(tasks.missing_inputs),
        "needs the internet": dict.fromkeys(sorted(tasks.needs_internet, key=int), "its data is online"),
        "solved in its input": dict.fromkeys(sorted(tasks.solved_already, key=int), SOLVED),
    }
    if profile == "strict":
        apart["excluded"] = {index: t.excluded for index, t in tasks.checks.items() if t.excluded}
    return apart


def _not_the_models(scores: Mapping[Attempt, Score], failures: Mapping[Attempt, str]) -> dict[Attempt, str]:
    unscored = {
        key: score.reason
        for key, score in scores.items()
        if score.passed is None and score.owner not in ("model", "sample")
    }
    return unscored | {key: reason for key, reason in failures.items() if key not in scores}


def _fair(
    every: Iterable[Attempt], of_tasks: Mapping[str, Mapping[str, str]], lost: Mapping[Attempt, str]
) -> list[Attempt]:
    set_apart = {index for found in of_tasks.values() for index in found}
    return [key for key in every if key[0] not in set_apart and key not in lost]


def _denominator(profile: Profile, tasks: Tasks, n_apart: int, n_epochs: int) -> str:
    times = f", {n_epochs} times" if n_epochs > 1 else ""
    if profile == "upstream":
        return f"all {len(tasks.checks)} tasks{times}, as in the paper: what has no result failed"
    if n_epochs > 1:
        return f"{len(tasks.checks)} tasks{times}, less {n_apart} attempts that are reported apart"
    return f"{len(tasks.checks)} tasks less {n_apart} that are reported apart"


def _name(index: str, epoch: int) -> str:
    return index if epoch == 1 else f"{index}@{epoch}"


def _index(name: str) -> str:
    return name.partition("@")[0]


def _by(key_of: Callable[[str], str], passed: Mapping[tuple[str, int], bool]) -> dict[str, Share]:
    groups: dict[str, list[bool]] = {}
    for (index, _), is_passed in passed.items():
        groups.setdefault(key_of(index), []).append(is_passed)
    return {name: _share(found) for name, found in groups.items()}


def _share(passes: Iterable[bool]) -> Share:
    found = list(passes)
    n = len(found)
    return Share(sum(found), n, mean([float(p) for p in found]), wilson_interval(sum(found), n))


def wilson_interval(n_passed: int, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share; None of nothing.

    Wilson's score interval (1927): unlike mean +- 1.96 standard errors it stays within 0 and 1, and
    keeps its level for the small groups that PyBench has.
    """
    if n == 0:
        return None
    share, z2 = n_passed / n, Z_95 * Z_95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Where none or all passed, one end is the share itself, but for rounding.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _average_turns(attempts: Sequence[ScoredAttempt]) -> dict[str, float | None]:
    counted = [
        a.n_turns if a.score.passed else UPSTREAM_MAX_TURNS for a in attempts if a.score.passed is not None
    ]
    return {"plain": mean([a.n_turns for a in attempts]), "upstream": mean(counted)}


def differences(tasks: Tasks, reports: Mapping[Profile, ProfileReport]) -> list[dict[str, Any]]:
    """Return every task that the profiles judge differently, why, and what came of it in each."""
    return [
        {"task": index, "reason": task.excluded or task.flaw}
        | {profile: _outcome(report, index) for profile, report in reports.items()}
        for index, task in tasks.checks.items()
        if task.differs
    ]


def _outcome(report: ProfileReport, index: str) -> str:
    found = [result for name, result in report.results.items() if _index(name) == index]
    if found:
        return found[0] if len(set(found)) == 1 else f"{PASS} {found.count(PASS)} of {len(found)}"
    titles = [title for title, names in report.apart.items() if index in map(_index, names)]
    return f"apart ({', '.join(titles)})"


def as_json(report: ProfileReport) -> dict[str, Any]:
    """Return a report as a mapping of JSON."""
    return asdict(report)


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a report, as the mapping of `as_json`, as text: the number, its groups, what is apart."""
    yield f"{report['profile']}: {_words(report)} of {report['denominator']}"
    yield from _rows("group", report["by_group"])
    yield from _rows("category1", report["by_category1"])
    for title, found in report["apart"].items():
        if found:
            share = report["apart_passed"][title]
            yield f"  {title}: {', '.join(found)} ({share['passed']} of {share['total']} passed)"
    plain, upstream = report["average_turns"]["plain"], report["average_turns"]["upstream"]
    if plain is not None and upstream is not None:
        yield f"  average turns: {plain:.2f}; upstream's way, 10 for each that failed: {upstream:.2f}"


def _rows(title: str, shares: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    width = max((_columns(name) for name in shares), default=0)
    yield f"  by {title}:"
    for name, share in shares.items():
        yield f"    {name or 'unknown'}{' ' * (width - _columns(name))}  {_words(share)}"


def _columns(text: str) -> int:
    # Chinese characters are as wide as two Latin ones on a terminal.
    return sum(2 if ord(character) > 0x2E80 else 1 for character in text)


def _words(share: Mapping[str, Any]) -> str:
    counts = f"{share['passed']}/{share['total']}"
    if share["interval_95"] is None:
        return counts
    low, high = share["interval_95"]
    return f"{counts} = {share['pass_rate']:.1%} (95 % interval {low:.1%} to {high:.1%})"


def difference_lines(found: Sequence[Mapping[str, Any]], profiles: Sequence[str]) -> Iterator[str]:
    """Yield the tasks that the profiles judge differently, those first where that decided."""
    decided = [row for row in found if len({row.get(profile) for profile in profiles}) > 1]
    yield f"judged by different rules: {len(found)} tasks; by different outcomes: {len(decided)}"
    for row in decided:
        outcomes = ", ".join(f"{profile} {row[profile]}" for profile in profiles)
        yield f"  {row['task']}: {outcomes}: {row['reason']}"
