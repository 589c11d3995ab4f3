"""The report as a person reads it: a table by category and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table

from scoring.pybench.report import difference_lines
from scoring.pybench.report import lines as profile_lines
from scoring.score import DEFAULT_PROFILE, Report
from scoring.store import REPORT, SCORES


def print_report(report: Report, run_dir: Path, file: IO[str]) -> None:
    """Print a report; without colours and lines when `file` is no terminal."""
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    console.print(title(report), soft_wrap=True)
    console.print(_table(report, decorated=console.is_terminal))
    for line in (*detail_lines(report.details), *summary_lines(report, run_dir)):
        console.print(line, soft_wrap=True)


def detail_lines(details: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what PyBench's own rules say, by profile, and where its profiles differ. Pure."""
    if not details:
        return
    if details.get("prompt"):
        yield f"system prompt: {details['prompt']}"
    profiles = details["profiles"]
    for report in profiles.values():
        yield from profile_lines(report)
    yield from difference_lines(details["differences"], list(profiles))


def summary_lines(report: Report, run_dir: Path) -> Iterator[str]:
    """Yield what is said below the table. Pure."""
    yield f"pass rate: {_pass_rate(report)}"
    yield _not_the_models(report)
    if report.n_set_apart:
        yield f"set apart by the benchmark's rules: {_attempts(report.n_set_apart)}, in no rate"
    if report.n_not_scored:
        owners = ", ".join(f"{owner} {n}" for owner, n in report.not_scored_by_owner.items())
        n = report.n_not_scored
        yield f"not scored: {_attempts(n)} that the model cannot answer for, in no mean; by owner: {owners}"
    if report.n_attempts is not None and report.n_trajectories < report.n_attempts:
        n_missing = report.n_attempts - report.n_trajectories
        yield f"incomplete: {n_missing} of {_attempts(report.n_attempts)} have no trajectory yet"
    if report.n_failures:
        owners = ", ".join(f"{owner} {n}" for owner, n in report.failures_by_owner.items())
        yield (
            f"failed: {_attempts(report.n_failures)} in failures.jsonl and in no number here; by owner: "
            f"{owners}; run the same command again to run them again"
        )
    if report.n_duplicates:
        yield f"warning: {report.n_duplicates} trajectories of attempts that have an earlier one are left out"
    if report.pass_at_k:
        yield "pass@k: " + ", ".join(f"pass@{k} {_percent(p)}" for k, p in report.pass_at_k.items())
    yield "ended by: " + ", ".join(f"{reason} {n}" for reason, n in report.stop_reasons.items())
    if report.n_tokens:
        cost = f", cost {report.cost:.4g}" if report.cost is not None else ""
        yield f"tokens: {report.n_tokens}{cost}"
    yield f"wall time: {_wall(report)}"
    yield f"files: {run_dir}/ (trajectories.jsonl, artifacts/, {SCORES}, {REPORT})"


def title(report: Report) -> str:
    """Return what was scored, in one line."""
    scorer = f"scorer {report.scorer} {report.scorer_version}"
    if report.profile != DEFAULT_PROFILE:
        scorer += f", profile {report.profile}"
    return f"{report.benchmark}: {_attempts(report.n_trajectories)}, {scorer}"


def _table(report: Report, *, decorated: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if decorated else None, pad_edge=False)
    table.add_column("category", overflow="fold")
    for name in ("passed", "not scored", "mean turns"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.by_category:
        passed = f"{row.n_passed}/{row.n_scored}"
        table.add_row(row.category or "-", passed, str(row.n_not_scored), _turns(row.mean_turns))
    passed = f"{report.n_passed}/{report.n_scored}"
    table.add_row("all", passed, str(report.n_not_scored), _turns(report.mean_turns), style="bold")
    return table


def _pass_rate(report: Report) -> str:
    if report.pass_rate is None and report.pass_rate_of_scored is not None:
        scored = f"{_percent(report.pass_rate_of_scored)} of the {report.n_scored} scored"
        return f"withheld ({scored}): {report.headline_withheld}"
    if report.pass_rate is None:
        return "none, no attempt could be scored"
    error = f", standard error {_percent(report.standard_error)}" if report.standard_error is not None else ""
    return f"{_percent(report.pass_rate)} ({report.n_passed} of {report.n_scored}{error})"


def _not_the_models(report: Report) -> str:
    share = _percent(report.failed_share)
    return f"not the model's to lose: {_attempts(report.n_not_the_models)} ({share} of all), in no mean"


def _wall(report: Report) -> str:
    if report.wall_s is None:
        return "unknown, events.log does not say"
    rate = report.trajectories_per_minute
    speed = f", {rate:.1f} trajectories per minute" if rate is not None else ""
    return f"{report.wall_s:.1f} s{speed}"


def _attempts(n: int) -> str:
    return "1 attempt" if n == 1 else f"{n} attempts"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _turns(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.2f}"
