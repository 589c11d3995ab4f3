from __future__ import annotations

import itertools
import statistics
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.score import (
    DEFAULT_MAX_FAILED_SHARE,
    RunFacts,
    Score,
    ScoredAttempt,
    Scorer,
    clustered_standard_error,
    headline_withheld,
    make_report,
    pass_at_k,
    run_wall_s,
)

RUN = RunFacts(
    "quickstart",
    "run",
    "hash",
    {"engine": 2},
    n_duplicates=1,
    n_attempts=None,
    wall_s=30.0,
    max_failed_share=1.0,
)


def attempt(
    sample_id: str, passed: bool | None, *, epoch: int = 1, category: str = "a", n_turns: int = 2
) -> ScoredAttempt:
    """Return a scored attempt."""
    owner = "sandbox" if passed is None else "model"
    score = Score(sample_id, epoch, passed, float(bool(passed)), "", owner, "quickstart", "1", "default")
    return ScoredAttempt(score, category, n_turns, "answer" if passed is not None else "sandbox_error")


def test_what_the_rules_set_apart_is_in_no_rate_and_not_lost() -> None:
    """Passed, failed or not judged: it withholds no headline and is in no category's count."""
    apart = [
        replace(attempt(name, passed), is_set_apart=True)
        for name, passed in (("x", True), ("y", False), ("z", None))
    ]
    run = replace(RUN, failures_by_owner={}, max_failed_share=0.0)
    report = make_report([attempt("w", True), *apart], Scorer("pybench", "1", "strict"), run)
    assert (report.n_trajectories, report.n_scored, report.n_passed, report.n_set_apart) == (4, 1, 1, 3)
    assert (report.pass_rate, report.n_not_scored, report.n_not_the_models) == (1.0, 0, 0)
    assert (report.headline_withheld, report.mean_turns) == (None, 2.0)
    (row,) = report.by_category
    assert (row.n_passed, row.n_scored, row.n_not_scored) == (1, 1, 0)


def test_what_is_not_the_models_to_lose_is_in_no_mean() -> None:
    """Attempts without a verdict are counted apart, in all and in their category."""
    attempts = [
        attempt("x", True),
        attempt("y", False, category="b"),
        attempt("z", None, category="b", n_turns=5),
    ]
    report = make_report(attempts, Scorer("quickstart", "1"), RUN, ["b", "a", "unused"])
    assert (report.n_trajectories, report.n_scored, report.n_passed, report.n_not_scored) == (3, 2, 1, 1)
    assert (report.pass_rate, report.mean_turns, report.not_scored_by_owner) == (0.5, 3.0, {"sandbox": 1})
    assert report.stop_reasons == {"answer": 2, "sandbox_error": 1}
    assert (report.wall_s, report.trajectories_per_minute) == (30.0, 6.0)
    assert (report.n_failures, report.n_duplicates, report.pass_at_k) == (2, 1, {})
    rows = [(row.category, row.n_passed, row.n_scored, row.n_not_scored) for row in report.by_category]
    assert rows == [("b", 0, 1, 1), ("a", 1, 1, 0)]


def test_nothing_scored_has_no_rate() -> None:
    """Without a verdict, and without an attempt, rates are unknown and not zero."""
    for attempts in ([attempt("x", None)], []):
        report = make_report(attempts, Scorer("quickstart", "1"), RUN)
        assert (report.pass_rate, report.standard_error, report.mean_score) == (None, None, None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_pass(case: tuple[int, int, int]) -> None:
    """The estimator equals the count over all draws of k out of n attempts."""
    n_attempts, n_passed, k = case
    draws = list(itertools.combinations([True] * n_passed + [False] * (n_attempts - n_passed), k))
    assert pass_at_k(n_attempts, n_passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_over_samples() -> None:
    """It is there for powers of two up to the attempts that every sample has, and for these."""
    attempts = [attempt("x", epoch == 1, epoch=epoch) for epoch in (1, 2, 3)]
    attempts += [attempt("y", False, epoch=epoch) for epoch in (1, 2, 3, 4)]
    report = make_report(attempts, Scorer("quickstart", "1"), RUN)
    assert report.pass_at_k == pytest.approx({"1": 1 / 6, "2": 1 / 3, "3": 0.5})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.lists(st.booleans(), min_size=2))
def test_standard_error_of_single_attempts_is_the_usual_one(passes: list[bool]) -> None:
    """With one attempt a sample it is the sample deviation over the root of n."""
    expected = statistics.stdev(map(float, passes)) / len(passes) ** 0.5
    clusters = {str(index): [value] for index, value in enumerate(passes)}
    assert clustered_standard_error(clusters) == pytest.approx(expected)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.lists(st.booleans(), min_size=2), st.integers(1, 5))
def test_repeating_each_attempt_adds_no_certainty(passes: list[bool], n_epochs: int) -> None:
    """Attempts of a sample that all end alike count as one."""
    once = {str(index): [value] for index, value in enumerate(passes)}
    often = {name: values * n_epochs for name, values in once.items()}
    assert clustered_standard_error(often) == pytest.approx(clustered_standard_error(once))
    assert clustered_standard_error({"x": [True, False]}) is None


def test_wall_time_adds_up_resumes() -> None:
    """A finished part lasts what it says, a killed one until its last event; the gap between does not count."""
    events = [
        {"at": 100.0, "event": "run_started"},
        {"at": 107.0, "event": "drain"},
        {"at": 1000.0, "event": "run_started"},
        {"at": "soon", "event": "run_finished"},
        {"at": 1012.0, "event": "run_finished", "wall_s": 11.5},
    ]
    assert run_wall_s(events) == 18.5
    assert run_wall_s([]) is None


def test_headline_is_withheld_where_too_much_was_lost() -> None:
    """A mean over what is left says little where many attempts were not the model's to lose."""
    attempts = [attempt("a", True), attempt("b", False), attempt("c", None)]
    lost_one_in_three = replace(RUN, failures_by_owner={}, max_failed_share=1 / 3)
    report = make_report(attempts, Scorer("quickstart", "1"), lost_one_in_three)
    assert (report.pass_rate, report.headline_withheld) == (0.5, None)
    assert (report.n_not_the_models, report.failed_share) == (1, 1 / 3)

    report = make_report(
        attempts, Scorer("quickstart", "1"), replace(lost_one_in_three, failures_by_owner={"engine": 1})
    )
    assert (report.pass_rate, report.mean_score, report.pass_rate_of_scored) == (None, None, 0.5)
    assert report.headline_withheld is not None
    assert "2 of 4 attempts (50.0%) were not the model's to lose, more than 33.3%" in report.headline_withheld


def test_default_share_is_two_percent() -> None:
    """One lost attempt of fifty is borne, two are not."""
    assert headline_withheld(1, 50, DEFAULT_MAX_FAILED_SHARE) is None
    assert headline_withheld(2, 50, DEFAULT_MAX_FAILED_SHARE) is not None
    assert headline_withheld(0, 0, DEFAULT_MAX_FAILED_SHARE) is None
