"""python -m runner sweep FILE: one run for each cell of a matrix."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.cluster.job import check_run_dir
from runner.config import parse_setting
from runner.errors import ConfigError
from runner.progress import RunConsole, duration
from runner.sweep import Cell, CellResult, read_sweep, run_sweep

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128


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
        for cell in cells:
            print(f"  {cell.name}")
        return 0
    console = RunConsole()
    results = uvloop.run(
        run_sweep(cells, console, side_by_side=arguments.side_by_side, on_result=report_cell)
    )
    Console(highlight=False).print(table(results))
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
    add("--dry-run", action="store_true", help="list the runs")
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
        settings.setdefault("progress", "quiet")  # several live views cannot share a terminal
    return settings


def report_cell(result: CellResult) -> None:
    """Print that a cell is over."""
    if result.error is not None:
        print(f"{result.cell.name}: error: {result.error}", file=sys.stderr, flush=True)
    elif result.summary is not None:
        n_done = result.summary.n_done_before + result.summary.statistics.n_finished
        print(f"{result.cell.name}: {n_done} finished, {result.summary.n_left} left", flush=True)


def table(results: Sequence[CellResult]) -> Table:
    """Return what came of all cells."""
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "finished", "left", "failed", "turns", "tokens", "cost", "time"):
        grid.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    for result in sorted(results, key=lambda result: result.cell.name):
        grid.add_row(*(Text(cell) for cell in _row(result)))
    return grid


def _row(result: CellResult) -> list[str]:
    if result.summary is None:
        return [result.cell.name, "error", *[""] * 6]
    s = result.summary.statistics
    return [
        result.cell.name,
        str(result.summary.n_done_before + s.n_finished),
        str(result.summary.n_left),
        str(s.n_failed),
        str(s.n_turns),
        str(s.n_prompt_tokens + s.n_completion_tokens),
        "" if s.cost is None else f"{s.cost:.4g}",
        duration(s.elapsed_s),
    ]


def exit_code(cells: Sequence[Cell], results: Sequence[CellResult]) -> int:
    """Return the exit code of a sweep."""
    signals = [result.signal_number for result in results if result.signal_number is not None]
    if signals:
        return EXIT_SIGNAL + signals[0]
    is_whole = len(results) == len(cells) and all(r.summary and not r.summary.n_left for r in results)
    return 0 if is_whole else EXIT_FAILED
