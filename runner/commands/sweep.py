"""python -m runner sweep FILE: one run for each cell of a matrix."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.batch import prepare
from runner.cluster.job import check_run_dir
from runner.config import parse_setting
from runner.errors import ConfigError, JournalError
from runner.journal import read_events, read_failures, read_trajectories
from runner.matrix import Cell, read_sweep
from runner.progress import RunConsole, duration
from runner.resume import check_same_run
from runner.show import RunTotals
from runner.sweep import CANNOT_BEGIN, CellResult, run_sweep

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128

COLUMNS = ("run", "finished", "left", "failed", "turns", "tokens", "cost", "time")
FILE_CHARS = 10_000
"""Width of the table where no terminal bounds it: a run is one line then."""


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code, as `python -m runner run` has them."""
    arguments = parse_arguments(argv)
    try:
        cells = read_sweep(arguments.config, overrides(arguments))
        folder: Path = cells[0].config.run_dir.parent  # type: ignore[union-attr]
        check_run_dir(folder)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{arguments.config}: {len(cells)} runs below {folder}", flush=True)
    if arguments.dry_run:
        return max([dry_run(cell) for cell in cells])
    console = RunConsole()
    results = uvloop.run(
        run_sweep(cells, console, side_by_side=arguments.side_by_side, on_result=report_cell)
    )
    width = None if sys.stdout.isatty() else FILE_CHARS
    Console(highlight=False, width=width).print(table(cells, results))
    return exit_code(cells, results)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m runner sweep",
        description="Run each combination of a config's matrix. The same --run-dir resumes.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("config", metavar="FILE", type=Path, help="a YAML file with a matrix; see configs/sweep.yaml")
    add("--run-dir", metavar="DIR", type=Path, help="where the runs go (default: new in runs/)")
    add("--side-by-side", metavar="N", type=int, default=1, help="runs at a time, within shared limits")
    add("--set", metavar="KEY.PATH=VALUE", action="append", default=[], dest="settings",
        help="set any key of the config for all cells (repeatable)")  # fmt: skip
    add(
        "--dry-run",
        action="store_true",
        help="list the runs: what each would run and reuse, or why it cannot",
    )
    arguments = parser.parse_args(argv)
    if arguments.side_by_side < 1:
        parser.error(f"--side-by-side {arguments.side_by_side}: at least one run at a time")
    return arguments


def overrides(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what the command line sets."""
    settings = dict(parse_setting(text) for text in arguments.settings)
    if arguments.run_dir is not None:
        settings["run_dir"] = arguments.run_dir
    if arguments.side_by_side > 1:
        settings.setdefault("progress", "plain")  # several live views cannot share a terminal
    return settings


def dry_run(cell: Cell) -> int:
    """Print what a cell would run and reuse, or why it could not begin. Returns an exit code."""
    try:
        batch = prepare(cell.config)
        check_same_run(batch.run_dir, batch.record({}))
        counts = Counter(planned.action for planned in batch.plan())
    except CANNOT_BEGIN as error:
        print(f"  {cell.name}: error: {error}", flush=True)
        return EXIT_USAGE
    print(
        f"  {cell.name}: {counts['run']} to run, {counts['resume']} to go on with, {counts['reuse']} done",
        flush=True,
    )
    return 0


def report_cell(result: CellResult) -> None:
    """Print that a cell is over; the others go on where nobody reads that any more."""
    with suppress(BrokenPipeError):
        if result.error is not None:
            print(f"{result.cell.name}: error: {result.error}", file=sys.stderr, flush=True)
        elif result.summary is not None:
            n_done = result.summary.n_done_before + result.summary.statistics.n_finished
            print(f"{result.cell.name}: {n_done} finished, {result.summary.n_left} left", flush=True)


def table(cells: Sequence[Cell], results: Sequence[CellResult]) -> Table:
    """Return what there is of all cells, whichever commands ran them. Reads the run directories."""
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        grid.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    by_name = {result.cell.name: result for result in results}
    for cell in cells:
        grid.add_row(*(Text(text) for text in _row(cell, by_name.get(cell.name))))
    return grid


def _row(cell: Cell, result: CellResult | None) -> list[str]:
    if result is None or result.summary is None:
        first = [cell.name, "not begun" if result is None else "error", ""]
    else:
        n_done = result.summary.n_done_before + result.summary.statistics.n_finished
        first = [cell.name, str(n_done), str(result.summary.n_left)]
    try:
        return first + _totals(cell)
    except JournalError:  # the cell's error says it
        return first + [""] * (len(COLUMNS) - len(first))


def _totals(cell: Cell) -> list[str]:
    """Return the last columns of a cell. Raises JournalError."""
    assert cell.config.run_dir is not None, "each cell has its own"
    totals = RunTotals(read_trajectories(cell.config.run_dir))
    without = totals.without_a_line(read_failures(cell.config.run_dir))
    wall_s = sum(event.get("wall_s") or 0.0 for event in read_events(cell.config.run_dir))
    return [
        str(sum(row["stop_reason"] != "cancelled" for row in without)),
        str(totals.n_turns),
        str(totals.n_tokens),
        f"{totals.cost:.4g}" if totals.cost else "",
        duration(wall_s),
    ]


def exit_code(cells: Sequence[Cell], results: Sequence[CellResult]) -> int:
    """Return the exit code of a sweep."""
    signals = [result.signal_number for result in results if result.signal_number is not None]
    if signals:
        return EXIT_SIGNAL + signals[0]
    is_whole = len(results) == len(cells) and all(r.summary and not r.summary.n_left for r in results)
    return 0 if is_whole else EXIT_FAILED
