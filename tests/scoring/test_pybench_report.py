"""PyBench's numbers: intervals, denominators, what is apart, turns, differences, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_data.sample import Sample
from scoring.pybench.report import (
    Tasks,
    as_json,
    difference_lines,
    differences,
    lines,
    profile_report,
    tasks_apart,
    wilson_interval,
)
from scoring.pybench.tasks import Profile, TaskChecks
from scoring.pybench.upstream_checks import AlwaysPasses
from scoring.score import Score, ScoredAttempt

PASSES = AlwaysPasses()
CHECKS = {
    "2": TaskChecks(upstream=PASSES),
    "3": TaskChecks(upstream=PASSES, strict=PASSES, flaw="its input was solved"),
    "11": TaskChecks(upstream=PASSES, excluded="cannot pass"),
    "17": TaskChecks(upstream=PASSES),
    "128": TaskChecks(upstream=PASSES, needs_internet=True),
}


def sample(index: str, category: str, category1: str) -> Sample:
    """Return a task of a group, with upstream's own category."""
    return Sample(id=index, messages=(), category=category, metadata={"category1": category1})


TASKS = Tasks(
    samples={
        index: sample(index, "chart" if index in ("2", "3") else "text", f"数据\n({index})")
        for index in CHECKS
    },
    checks=CHECKS,
    missing_inputs={"17": "./data/horror.csv is missing"},
)


def attempt(
    index: str, passed: bool | None, *, epoch: int = 1, owner: str = "model", n_turns: int = 3
) -> ScoredAttempt:
    """Return a scored attempt."""
    score = Score(index, epoch, passed, float(passed is True), f"why {index}", owner, "pybench", "1", "x")
    return ScoredAttempt(score, "", n_turns, "answer")


ATTEMPTS = [
    attempt("2", True),
    attempt("3", False),
    attempt("11", True),
    attempt("17", False),
    attempt("128", False),
]


@pytest.mark.parametrize(
    ("n_passed", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(n_passed: int, n: int, low: float, high: float) -> None:
    """The examples of Newcombe 1998 (Statistics in Medicine 17, table I, method 3)."""
    assert wilson_interval(n_passed, n) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    """It never leaves 0 to 1, and mirrors where passes and failures are swapped."""
    n_passed, n = counts
    interval, mirrored = wilson_interval(n_passed, n), wilson_interval(n - n_passed, n)
    assert interval is not None
    assert mirrored is not None
    assert 0 <= interval[0] <= n_passed / n <= interval[1] <= 1
    assert interval == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_of_nothing_there_is_no_interval() -> None:
    """Nor a rate."""
    assert wilson_interval(0, 0) is None


def test_upstream_counts_every_task() -> None:
    """What lacks inputs, a network or a trajectory failed, as in the paper."""
    report = profile_report("upstream", ATTEMPTS[:3], TASKS, n_epochs=1)
    assert (report.passed, report.total, report.pass_rate) == (2, 5, 0.4)
    assert report.results == {"2": "Pass", "3": "Failed", "11": "Pass", "17": "Failed", "128": "Failed"}
    assert report.reasons == {"3": "why 3", "17": "no trajectory", "128": "no trajectory"}
    assert report.denominator == "all 5 tasks, as in the paper: what has no result failed"
    assert "excluded" not in report.apart


def test_strict_counts_what_can_be_lost() -> None:
    """Excluded tasks, and those without inputs or network, are apart, with what came of them."""
    report = profile_report("strict", ATTEMPTS, TASKS, n_epochs=1)
    assert (report.passed, report.total) == (1, 2)
    assert report.results == {"2": "Pass", "3": "Failed"}
    assert report.denominator == "5 tasks less 3 that are reported apart"
    assert report.apart == {
        "missing inputs": {"17": "./data/horror.csv is missing"},
        "needs the internet": {"128": "its data is online"},
        "solved in its input": {},
        "excluded": {"11": "cannot pass"},
        "not the model's to lose": {},
    }
    passed = {title: (share.passed, share.total) for title, share in report.apart_passed.items()}
    assert passed == {
        "missing inputs": (0, 1),
        "needs the internet": (0, 1),
        "solved in its input": (0, 0),
        "excluded": (1, 1),
        "not the model's to lose": (0, 0),
    }


def test_strict_counts_no_task_that_its_input_solves() -> None:
    """At head a copy of the input passes: upstream counts it, strict does not; the originals are fair."""
    checks = CHECKS | {"2": TaskChecks(upstream=PASSES, is_solved_at_head=True)}
    at_head = Tasks(TASKS.samples, checks, {}, data_version="head")
    upstream, strict = (profile_report(p, ATTEMPTS, at_head, n_epochs=1) for p in ("upstream", "strict"))
    assert upstream.results["2"] == "Pass"
    assert "2" not in strict.results
    assert (strict.passed, strict.total) == (0, 2)
    assert list(strict.apart["solved in its input"]) == list(upstream.apart["solved in its input"]) == ["2"]
    assert strict.apart_passed["solved in its input"].passed == 1
    fair = profile_report("strict", ATTEMPTS, Tasks(TASKS.samples, checks, {}), n_epochs=1)
    assert fair.results["2"] == "Pass"


def test_groups_add_up() -> None:
    """Both divisions hold every attempt that is counted; category1 is shown without its package hints."""
    report = profile_report("upstream", ATTEMPTS, TASKS, n_epochs=1)
    assert {name: (s.passed, s.total) for name, s in report.by_group.items()} == {
        "chart": (1, 2),
        "text": (1, 3),
    }
    assert {name: (s.passed, s.total) for name, s in report.by_category1.items()} == {"数据": (2, 5)}


LOST = {"2": "why 2", "3@2": "ended by model_error: no server"}


@pytest.mark.parametrize("profile", ["upstream", "strict"])
def test_an_attempt_that_was_lost_by_us_is_apart_and_not_its_task(profile: Profile) -> None:
    """Whether its line says so or the run's failures do, unless it was made good since."""
    scored = [
        attempt("2", None, owner="sandbox"),
        attempt("2", True, epoch=2),
        attempt("3", True),
    ]
    failures = {("3", 2): LOST["3@2"], ("2", 2): "done since", ("3", 1): "done since"}
    report = profile_report(profile, scored, TASKS, n_epochs=2, failures=failures)
    assert report.apart["not the model's to lose"] == LOST
    if profile == "strict":
        assert report.results == {"3": "Pass", "2@2": "Pass"}
        assert report.denominator == "5 tasks, 2 times, less 8 attempts that are reported apart"
    else:
        assert (report.passed, report.total) == (2, 10)
        assert {name: report.reasons[name] for name in LOST} == LOST


def test_missing_inputs_of_tasks_that_have_no_check_change_no_denominator() -> None:
    """A checkout may have rows of its own."""
    tasks = Tasks(TASKS.samples, CHECKS, {"999": "./data/x is missing"})
    report = profile_report("strict", ATTEMPTS, tasks, n_epochs=1)
    assert (report.total, report.denominator) == (3, "5 tasks less 2 that are reported apart")


def test_average_turns_are_counted_both_ways() -> None:
    """Plainly over all attempts; upstream's way 10 for a failure, and nothing for what is not judged."""
    scored = [
        attempt("2", True, n_turns=2),
        attempt("3", False, n_turns=4),
        attempt("17", None, owner="runner", n_turns=6),
    ]
    report = profile_report("upstream", scored, TASKS, n_epochs=1)
    assert report.average_turns == {"plain": 4.0, "upstream": 6.0}
    assert profile_report("upstream", [], TASKS, n_epochs=1).average_turns == {
        "plain": None,
        "upstream": None,
    }


def test_differences_name_each_task_and_why() -> None:
    """Those that are excluded as well; the printed lines show where the outcome differs."""
    reports: dict[Profile, Any] = {
        profile: profile_report(profile, ATTEMPTS, TASKS, n_epochs=1) for profile in ("upstream", "strict")
    }
    found = differences(TASKS, reports)
    assert found == [
        {"task": "3", "reason": "its input was solved", "upstream": "Failed", "strict": "Failed"},
        {"task": "11", "reason": "cannot pass", "upstream": "Pass", "strict": "apart (excluded)"},
    ]
    assert list(difference_lines(found, ["upstream", "strict"])) == [
        "judged by different rules: 2 tasks; by different outcomes: 1",
        "  11: upstream Pass, strict apart (excluded): cannot pass",
    ]


def test_differences_are_those_of_all_epochs() -> None:
    """What came of a task in several attempts is counted; where none counts, it is said why."""
    attempts = [attempt("3", True), attempt("3", False, epoch=2)]
    report = profile_report("strict", attempts, TASKS, n_epochs=2)
    lost = profile_report("strict", attempts, TASKS, n_epochs=2, failures={("3", 1): "x", ("3", 2): "y"})
    assert differences(TASKS, {"strict": report})[0]["strict"] == "Pass 1 of 2"
    assert differences(TASKS, {"strict": lost})[0]["strict"] == "Pass 1 of 2"
    lost = profile_report("strict", [], TASKS, n_epochs=2, failures={("3", 1): "x", ("3", 2): "y"})
    assert differences(TASKS, {"strict": lost})[0]["strict"] == "apart (not the model's to lose)"


def test_tasks_that_the_rules_set_apart() -> None:
    """An attempt that was lost by us does not set its task apart."""
    report = profile_report("strict", ATTEMPTS, TASKS, n_epochs=1, failures={("99", 1): "x"})
    assert tasks_apart(report) == {"11", "17", "128"}


def test_the_report_as_text() -> None:
    """The number with its interval and denominator, the groups, what is apart, the turns."""
    text = list(lines(as_json(profile_report("strict", ATTEMPTS, TASKS, n_epochs=1))))
    assert text == [
        "strict: 1/2 = 50.0% (95 % interval 9.5% to 90.5%) of 5 tasks less 3 that are reported apart",
        "  by group:",
        "    chart  1/2 = 50.0% (95 % interval 9.5% to 90.5%)",
        "  by category1:",
        "    数据  1/2 = 50.0% (95 % interval 9.5% to 90.5%)",
        "  missing inputs: 17 (0 of 1 passed)",
        "  needs the internet: 128 (0 of 1 passed)",
        "  excluded: 11 (1 of 1 passed)",
        "  average turns: 3.00; upstream's way, 10 for each that failed: 7.20",
    ]


def test_nothing_that_counts_is_a_report_without_a_rate() -> None:
    """No division by nothing."""
    tasks = Tasks({}, {"11": CHECKS["11"]}, {})
    assert next(lines(as_json(profile_report("strict", [], tasks, n_epochs=1)))).startswith(
        "strict: 0/0 of 1"
    )
