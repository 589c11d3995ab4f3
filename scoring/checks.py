"""Judges a check: what was expected against the final answer and the facts about the files. Pure.

The facts come from a sandbox that has read an untrusted file, so they can be anything: a judge
matches their shape before it looks at a value, and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench_data.checks import (
    AnswerCheckModel,
    AnswerJson,
    AnswerNumber,
    AnswerText,
    CheckModel,
    CompoundCheck,
    FileCheckModel,
)
from scoring import file_checks
from scoring.answers import answer_json, answer_line, answer_number, answer_text, folded
from scoring.compare import difference, is_close, show
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench.answer_judges import STRICT_ANSWER_JUDGES
from scoring.pybench.strict_judges import STRICT_FILE_JUDGES
from scoring.pybench.upstream_judges import UPSTREAM_ANSWER_JUDGES, UPSTREAM_FILE_JUDGES
from scoring.requests import facts_key, kind_of

AS_EXPECTED = "as expected"
MAX_REASON_CHARS = 1_000

FILE_JUDGES = {**file_checks.FILE_JUDGES, **UPSTREAM_FILE_JUDGES, **STRICT_FILE_JUDGES}
ANSWER_JUDGES = {**UPSTREAM_ANSWER_JUDGES, **STRICT_ANSWER_JUDGES}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a check passed, and why not."""

    passed: bool
    reason: str
    """For a person to act on: which file or answer, what it holds, what was expected."""


def judge(
    check: CheckModel, answer: str | None, facts: Mapping[str, Facts], stop_reason: str = ""
) -> Verdict:
    """Judge a check on the final reply and the facts; never raises on any of them.

    Args:
        check: what is expected.
        answer: the final reply; None when the attempt ended without one.
        facts: about the files, by `facts_key`.
        stop_reason: why the attempt ended, for the reason when there is no answer.
    """
    problem = _problem(check, answer, facts, stop_reason)
    if problem is None:
        return Verdict(passed=True, reason=AS_EXPECTED)
    # A lone surrogate, which JSON can smuggle in, would make the reason unwritable.
    reason = problem[:MAX_REASON_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
    return Verdict(passed=False, reason=reason)


def _problem(
    check: CheckModel, answer: str | None, facts: Mapping[str, Facts], stop_reason: str
) -> str | None:
    if isinstance(check, CompoundCheck):
        problems = [_problem(part, answer, facts, stop_reason) for part in check.checks]
        if not check.needs_all and None in problems:
            return None
        return "; ".join(problem for problem in problems if problem) or None
    if isinstance(check, FileCheckModel):
        return _file_problem(check, facts.get(facts_key(check)))
    if answer is None:
        return f"no final answer (stop_reason: {stop_reason or 'unknown'})"
    assert isinstance(check, AnswerCheckModel), f"{check} is of no kind that can be judged"
    return _answer_problem(check, answer)


def _answer_problem(check: AnswerCheckModel, answer: str) -> str | None:
    line = show(answer_line(answer))
    match check:
        case AnswerNumber():
            number = answer_number(answer)
            if is_close(check.value, number, check.abs_tol, check.rel_tol):
                return None
            return f"answer {line}: {number}, expected {check.value}"
        case AnswerText():
            if answer_text(answer) in map(folded, check.accept):
                return None
            return f"answer {line}, expected {' or '.join(map(show, check.accept))}"
        case AnswerJson():
            try:
                found = difference(check.value, answer_json(answer), check.abs_tol)
            except ValueError as error:
                return f"answer: {error}"
            return f"answer: {found}" if found else None
        case _:
            return ANSWER_JUDGES[kind_of(check)](check, answer)


def _file_problem(check: FileCheckModel, facts: Any) -> str | None:
    if not isinstance(facts, Mapping):
        problem: str | None = MALFORMED
    elif "problem" in facts:
        problem = str(facts["problem"]) if isinstance(facts["problem"], str) else MALFORMED
    else:
        problem = FILE_JUDGES[kind_of(check)](check, facts)
    return f"{check.path}: {problem}" if problem else None
