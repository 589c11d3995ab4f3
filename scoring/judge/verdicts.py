"""What the LLM judge's replies mean: verdicts, what holds in both orders, the numbers of a run. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scoring.judge.question import Pair
from scoring.pybench.report import UPSTREAM_MAX_TURNS, wilson_interval
from scoring.score import mean

Winner = Literal["candidate", "reference", "tie"]
Problem = Literal["unparsable", "refused"]
"""Why a task has no verdict; `refused`: the server would not take the question, for its length or content."""

Position = Literal["first", "second"]
FAVOURED: Mapping[tuple[str, str], Position] = {("A", "A"): "first", ("B", "B"): "second"}
"""By the winners of the two orders."""


class VerdictError(ValueError):
    """A reply of the judge that is no verdict; the message says why, fit to be sent back to it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge replied, by position."""

    passes: Mapping[str, bool]
    """For A and B."""

    winner: str
    """A, B or tie."""

    reason: str


@dataclass(frozen=True, slots=True)
class JudgedTask:
    """A line of judge.jsonl. Without a verdict the first four are None and `problem` says why."""

    sample_id: str
    candidate_pass: bool | None = None
    reference_pass: bool | None = None
    winner: Winner | None = None
    agreed_across_orders: bool | None = None
    favoured_position: Position | None = None
    """The position that won both times, although the runs were swapped."""

    reasons: Sequence[str] = ()
    """With the candidate shown first, and with the reference shown first; or what the problem is."""

    problem: Problem | None = None

    missing: Sequence[str] = ()
    """Which of candidate and reference have no trajectory."""

    n_turns: int = 0
    """Of the candidate."""

    model: str = ""
    n_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the judge's passes go with the unit tests', over the tasks that both decided."""

    n_both_pass: int
    n_both_fail: int
    n_judge_only: int
    n_tests_only: int
    kappa: float | None
    """Cohen's; None where chance alone would agree always."""


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """The content of judge.json."""

    model: str
    n_tasks: int
    n_unparsable: int
    n_refused: int
    n_passed: int
    pass_rate: float | None
    """Of the candidate, over the tasks with a verdict."""

    pass_rate_95: tuple[float, float] | None
    """Wilson's interval."""

    reference_pass_rate: float | None
    n_win: int
    n_tie: int
    n_lose: int
    n_disagreed: int
    """Tasks whose two verdicts differ."""

    n_favoured: Mapping[str, int]
    """Of these, where the same position won both times: first, second."""

    n_missing: Mapping[str, int]
    """Tasks without a trajectory: of the candidate, of the reference, and of both, which are not judged."""

    mean_turns: float | None
    """Over the candidate's trajectories."""

    mean_turns_upstream: float | None
    """As PyBench has it: over all judged tasks, and a task that the judge fails counts 10 turns."""

    n_tokens: int
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    """By the profile of the unit tests."""


def parse_verdict(reply: str) -> Verdict:
    """Return the verdict in a reply: one JSON object, bare or in one fenced block.

    Raises:
        VerdictError: the reply holds anything else, or the object is not exactly what was asked for.
    """
    fenced = re.search(r"```(?:json)?\s*(.*)```", reply, re.DOTALL)
    text = reply.strip()
    if fenced and not text.startswith("{"):
        text = fenced[1]
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except VerdictError:
        raise
    except (ValueError, RecursionError) as error:
        raise VerdictError(f"it is not one JSON object ({error})") from error
    if not isinstance(value, dict) or set(value) != {"pass", "winner", "reason"}:
        raise VerdictError("it must be an object with the keys pass, winner and reason, and no other")
    passes, winner, reason = value["pass"], value["winner"], value["reason"]
    if not isinstance(passes, dict) or set(passes) != {"A", "B"}:
        raise VerdictError("pass must be an object with the keys A and B, and no other")
    if not all(isinstance(said, bool) for said in passes.values()):
        raise VerdictError("pass.A and pass.B must be true or false")
    if winner not in ("A", "B", "tie"):
        raise VerdictError('winner must be "A", "B" or "tie"')
    if not isinstance(reason, str):
        raise VerdictError("reason must be a string")
    return Verdict(passes, winner, reason)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise VerdictError("a key occurs twice")
    return value


def combine(pair: Pair, candidate_first: Verdict, reference_first: Verdict) -> JudgedTask:
    """Return what holds in both orders: a pass that both give, a winner that both name, else a tie.

    A run that has no trajectory neither passes nor wins, whatever the judge says.
    """
    opinions = [_opinion(pair, candidate_first, "A", "B"), _opinion(pair, reference_first, "B", "A")]
    winners = {winner for _, _, winner in opinions}
    return JudgedTask(
        sample_id=pair.sample.id,
        candidate_pass=all(candidate_passes for candidate_passes, _, _ in opinions),
        reference_pass=all(reference_passes for _, reference_passes, _ in opinions),
        winner=winners.pop() if len(winners) == 1 else "tie",
        agreed_across_orders=opinions[0] == opinions[1],
        favoured_position=FAVOURED.get((candidate_first.winner, reference_first.winner)),
        reasons=(candidate_first.reason, reference_first.reason),
    )


def _opinion(pair: Pair, verdict: Verdict, candidate: str, reference: str) -> tuple[bool, bool, Winner]:
    """Return whether candidate and reference pass, and who wins."""
    is_there: dict[Winner, bool] = {
        "candidate": pair.candidate is not None,
        "reference": pair.reference is not None,
    }
    names: dict[str, Winner] = {candidate: "candidate", reference: "reference"}
    winner = names.get(verdict.winner, "tie")
    return (
        verdict.passes[candidate] and is_there["candidate"],
        verdict.passes[reference] and is_there["reference"],
        winner if is_there.get(winner, True) else "tie",
    )


def summarise(
    judged: Sequence[JudgedTask], unit_tests: Mapping[str, Mapping[str, bool]], *, n_in_neither: int = 0
) -> JudgeSummary:
    """Return the numbers of a comparison; `unit_tests` has, by profile and sample, which passed."""
    decided = [task for task in judged if task.problem is None]
    problems = Counter(task.problem for task in judged)
    winners = Counter(task.winner for task in decided)
    favoured = Counter(task.favoured_position for task in decided)
    missing = Counter(name for task in judged for name in task.missing)
    n_passed = sum(task.candidate_pass is True for task in decided)
    upstream_turns = [UPSTREAM_MAX_TURNS if task.candidate_pass is False else task.n_turns for task in judged]
    return JudgeSummary(
        model=judged[0].model if judged else "",
        n_tasks=len(judged),
        n_unparsable=problems["unparsable"],
        n_refused=problems["refused"],
        n_passed=n_passed,
        pass_rate=mean([float(task.candidate_pass is True) for task in decided]),
        pass_rate_95=wilson_interval(n_passed, len(decided)),
        reference_pass_rate=mean([float(task.reference_pass is True) for task in decided]),
        n_win=winners["candidate"],
        n_tie=winners["tie"],
        n_lose=winners["reference"],
        n_disagreed=sum(task.agreed_across_orders is False for task in decided),
        n_favoured={"first": favoured["first"], "second": favoured["second"]},
        n_missing={name: missing[name] for name in ("candidate", "reference")} | {"both": n_in_neither},
        mean_turns=mean([task.n_turns for task in judged if "candidate" not in task.missing]),
        mean_turns_upstream=mean(upstream_turns),
        n_tokens=sum(task.n_tokens for task in judged),
        agreement={profile: agreement(decided, passed) for profile, passed in unit_tests.items()},
    )


def agreement(decided: Iterable[JudgedTask], passed: Mapping[str, bool]) -> Agreement:
    """Return how the judge's verdicts on the candidate go with unit tests that passed or not."""
    counts = Counter(
        (task.candidate_pass, passed[task.sample_id]) for task in decided if task.sample_id in passed
    )
    both, neither = counts[True, True], counts[False, False]
    judge_only, tests_only = counts[True, False], counts[False, True]
    return Agreement(both, neither, judge_only, tests_only, kappa(both, neither, judge_only, tests_only))


def kappa(n_both: int, n_neither: int, n_first_only: int, n_second_only: int) -> float | None:
    """Return Cohen's kappa of two yes-or-no ratings, 1.0 for perfect agreement, 0.0 for what chance gives."""
    n = n_both + n_neither + n_first_only + n_second_only
    first_yes, second_yes = n_both + n_first_only, n_both + n_second_only
    by_chance = first_yes * second_yes + (n - first_yes) * (n - second_yes)  # times n squared, as below
    if by_chance == n * n:
        return None
    return ((n_both + n_neither) * n - by_chance) / (n * n - by_chance)


def summary_lines(summary: JudgeSummary) -> Iterator[str]:
    """Yield what a person is told. Pure."""
    n_decided = summary.n_tasks - summary.n_unparsable - summary.n_refused
    low, high = summary.pass_rate_95 or (0.0, 0.0)
    yield f"judge: {summary.model}, {summary.n_tasks} tasks, each asked in both orders"
    yield (
        f"LLM pass rate: {_percent(summary.pass_rate)} ({summary.n_passed} of {n_decided}, "
        f"95 % {100 * low:.1f} to {100 * high:.1f}), reference {_percent(summary.reference_pass_rate)}"
    )
    yield f"against the reference: win {summary.n_win}, tie {summary.n_tie}, lose {summary.n_lose}"
    favoured = ", ".join(f"{position} {n}" for position, n in summary.n_favoured.items())
    yield (
        f"position: {summary.n_disagreed} of {n_decided} pairs of verdicts differ when swapped; "
        f"won both times: {favoured}"
    )
    if summary.n_unparsable or summary.n_refused:
        yield f"in no rate: unparsable {summary.n_unparsable}, refused by the server {summary.n_refused}"
    if any(summary.n_missing.values()):
        missing = ", ".join(f"{name} {n}" for name, n in summary.n_missing.items())
        yield f"agent failed, no trajectory: {missing} (both: not judged)"
    for profile, found in summary.agreement.items():
        by_chance = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
        yield (
            f"unit tests ({profile}): both pass {found.n_both_pass}, both fail {found.n_both_fail}, "
            f"judge only {found.n_judge_only}, tests only {found.n_tests_only}, kappa {by_chance}"
        )
    if summary.mean_turns is not None and summary.mean_turns_upstream is not None:
        yield f"average turns: {summary.mean_turns:.2f}; as PyBench counts: {summary.mean_turns_upstream:.2f}"
    yield f"tokens: {summary.n_tokens}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
