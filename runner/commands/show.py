"""python -m runner show RUN [ATTEMPT]: a run, or one trajectory of it, as text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.journal import (
    read_config,
    read_events,
    read_failures,
    read_inflight,
    read_trajectories,
)
from runner.show import run_lines, trajectory_lines, visible


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code: 0, 1 not readable or not there."""
    parser = argparse.ArgumentParser(
        prog="python -m runner show", description="Show a run, or one trajectory.", allow_abbrev=False
    )
    parser.add_argument("run_dir", metavar="RUN", type=Path)
    parser.add_argument("attempt", metavar="ATTEMPT", nargs="?", help="SAMPLE@EPOCH, or SAMPLE")
    arguments = parser.parse_args(argv)
    try:
        if arguments.attempt is None:
            return _print(_run(arguments.run_dir))
        return _show_attempt(arguments.run_dir, arguments.attempt)
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 0


def _print(lines: Iterator[str]) -> int:
    for line in lines:
        print(visible(line))
    return 0


def _run(run_dir: Path) -> Iterator[str]:
    config = read_config(run_dir)
    unfinished = {found.attempt: len(found.turns) for found in read_inflight(run_dir)}
    return run_lines(
        config, read_trajectories(run_dir), read_failures(run_dir), unfinished, read_events(run_dir)
    )


def _show_attempt(run_dir: Path, wanted: str) -> int:
    read_config(run_dir)
    names: set[str] = set()
    found = 0
    for row in _rows(run_dir):
        names.add(row["attempt"])
        if wanted in (row["attempt"], row["attempt"].rpartition("@")[0]):
            found += 1
            _print(trajectory_lines(row))
    if found:
        return 0
    near = get_close_matches(wanted, names, n=3, cutoff=0.4)
    hint = f"; near: {', '.join(near)}" if near else ""
    print(f"error: {run_dir} holds nothing of {wanted!r} ({len(names)} attempts{hint})", file=sys.stderr)
    return 1


def _rows(run_dir: Path) -> Iterator[Mapping[str, Any]]:
    """Yield finished attempts, then the latest failure of each of the others, then what is unfinished."""
    done = set()
    for row in read_trajectories(run_dir):
        done.add(row["attempt"])
        yield row
    failures = {row["attempt"]: row for row in read_failures(run_dir) if row["attempt"] not in done}
    yield from failures.values()
    for unfinished in read_inflight(run_dir):
        if unfinished.attempt not in done | failures.keys():
            yield {
                "attempt": unfinished.attempt,
                "stop_reason": "unfinished",
                "turns": [turn["turn"] for turn in unfinished.turns],
                "messages": [message for turn in unfinished.turns for message in turn["messages"]],
            }
