from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from scoring.report import print_report, summary_lines
from scoring.score import CategoryReport, Report

REPORT = Report(
    report_version=1,
    benchmark="quickstart",
    run_id="r",
    config_hash="h",
    scorer="quickstart",
    scorer_version="1",
    profile="default",
    n_trajectories=4,
    n_scored=3,
    n_passed=2,
    n_not_scored=1,
    not_scored_by_owner={"sandbox": 1},
    n_attempts=7,
    n_failures=1,
    failures_by_owner={"engine": 1},
    n_not_the_models=2,
    failed_share=0.4,
    max_failed_share=0.5,
    headline_withheld=None,
    n_duplicates=2,
    pass_rate=2 / 3,
    pass_rate_of_scored=2 / 3,
    mean_score=2 / 3,
    standard_error=1 / 3,
    pass_at_k={"1": 0.5, "2": 1.0},
    mean_turns=2.5,
    wall_s=30.0,
    trajectories_per_minute=8.0,
    n_tokens=1234,
    cost=0.5,
    stop_reasons={"answer": 3, "sandbox_error": 1},
    by_category=[
        CategoryReport("[red]audio editing", 2, 3, 1, 2 / 3, 2.5),
        CategoryReport("", 0, 0, 0, None, None),
    ],
)


def test_the_table_is_plain_where_nobody_watches() -> None:
    """In a file there are neither colours nor frames, and a category is never read as mark-up."""
    out = io.StringIO()
    print_report(REPORT, Path("runs/demo"), out)
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["[red]audio", "editing", "2/3", "1", "2.50"] in rows
    assert ["-", "0/0", "0", "-"] in rows
    assert ["all", "2/3", "1", "2.50"] in rows


def test_the_summary_says_what_counts_and_what_does_not() -> None:
    """Rate, attempts that are counted apart, time and files each have a line."""
    text = "\n".join(summary_lines(replace(REPORT, n_set_apart=3), Path("runs/demo")))
    for part in (
        "pass rate: 66.7 % (2 of 3, standard error 33.3 %)",
        "not the model's to lose: 2 attempts (40.0 % of all), in no mean",
        "set apart by the benchmark's rules: 3 attempts, in no rate",
        "tokens: 1234, cost 0.5",
        "not scored: 1 attempt that the model cannot answer for, in no mean; by owner: sandbox 1",
        "incomplete: 3 of 7 attempts have no trajectory yet",
        "failed: 1 attempt in failures.jsonl",
        "2 trajectories of attempts that have an earlier one",
        "pass@1 50.0 %, pass@2 100.0 %",
        "answer 3, sandbox_error 1",
        "wall time: 30.0 s, 8.0 trajectories per minute",
        "files: runs/demo/ (trajectories.jsonl, artifacts/, scores.jsonl, report.json)",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pass_rate": None, "pass_rate_of_scored": None}, "pass rate: none, no attempt could be scored"),
        ({"wall_s": None}, "wall time: unknown, events.log does not say"),
    ],
)
def test_the_unknown_is_said(changes: dict[str, None], text: str) -> None:
    """What the run does not tell is not made up."""
    assert text in summary_lines(replace(REPORT, **changes), Path())
