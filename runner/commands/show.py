"""python -m runner show RUN [ATTEMPT]: a run, or one trajectory of it, as text or as a notebook.

RUN is a run directory, or the file of a recorded run: our `trajectories.jsonl` or PyBench's
`trajectory.jsonl`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from runner.errors import RunnerError, write_error
from runner.journal import (
    read_config,
    read_events,
    read_failures,
    read_inflight,
    read_recorded,
    read_trajectories,
)
from runner.notebook import Pictures, no_picture, notebook_json
from runner.show import recorded_lines, run_lines, trajectory_lines, visible
from runner.trajectory.artifacts import write_synced

Row = Mapping[str, Any]


class _NotShown(RunnerError):  # noqa: N818 - named for the state, as in anyio
    """What was asked for is not there, or cannot be written there."""


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code: 0, 1 not readable, not there or not written."""
    parser = argparse.ArgumentParser(
        prog="python -m runner show", description="Show a run, or one trajectory.", allow_abbrev=False
    )
    parser.add_argument(
        "run_dir", metavar="RUN", type=Path, help="a run directory, or the file of a recorded run"
    )
    parser.add_argument("attempt", metavar="ATTEMPT", nargs="?", help="SAMPLE@EPOCH, or SAMPLE")
    parser.add_argument(
        "--ipynb",
        metavar="FILE",
        help="write the trajectory as a Jupyter notebook; - for standard output. An older .ipynb file is "
        "replaced, any other file is not",
    )
    arguments = parser.parse_args(argv)
    if arguments.ipynb is not None and arguments.attempt is None:
        parser.error("--ipynb needs ATTEMPT: a notebook is made of one trajectory")
    try:
        _show(arguments.run_dir, arguments.attempt, arguments.ipynb)
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _show(run: Path, wanted: str | None, ipynb: str | None) -> None:
    if not run.exists():
        raise _NotShown(f"{run} is not there; give a run directory, or the file of a recorded run")
    if wanted is None:
        _print(_run(run) if run.is_dir() else recorded_lines(str(run), read_recorded(run)))
    elif ipynb is None:
        for row in _wanted(run, wanted):
            _print(trajectory_lines(row))
    else:
        _write_notebook(run, _one(_wanted(run, wanted), wanted), ipynb)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(visible(line))


def _run(run_dir: Path) -> Iterator[str]:
    config = read_config(run_dir)
    unfinished = {found.attempt: len(found.turns) for found in read_inflight(run_dir)}
    return run_lines(
        config, read_trajectories(run_dir), read_failures(run_dir), unfinished, read_events(run_dir)
    )


def _wanted(run: Path, wanted: str) -> Iterator[Row]:
    """Yield the trajectories that a user names. Raises _NotShown, with near names, when there is none."""
    names: set[str] = set()
    found = 0
    for row in _rows(run) if run.is_dir() else read_recorded(run):
        names.add(row["attempt"])
        if wanted in (row["attempt"], row["attempt"].rpartition("@")[0]):
            found += 1
            yield row
    if not found:
        near = get_close_matches(wanted, names, n=3, cutoff=0.4)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise _NotShown(f"{run} holds nothing of {wanted!r} ({len(names)} attempts{hint})")


def _one(rows: Iterable[Row], wanted: str) -> Row:
    first, *others = rows
    if others:
        names = ", ".join(row["attempt"] for row in (first, *others[:3]))
        more = ", ..." if others[3:] else ""
        raise _NotShown(f"{wanted!r} is {1 + len(others)} trajectories ({names}{more}); name one of them")
    return first


def _rows(run_dir: Path) -> Iterator[Row]:
    """Yield finished attempts, then the latest failure of each of the others, then what is unfinished.

    Raises JournalError: it is no run directory.
    """
    read_config(run_dir)
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


def _write_notebook(run: Path, row: Row, target: str) -> None:
    read_picture = Pictures(run).read if run.is_dir() else no_picture
    content = notebook_json(row, read_picture)
    if target == "-":
        sys.stdout.buffer.write(content)
        return
    path = Path(target)
    if path.exists() and not (path.is_file() and path.suffix == ".ipynb"):
        raise _NotShown(f"{path} exists and is no .ipynb file; it is not replaced: choose another FILE")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise write_error(path, error) from error
    print(f"{row['attempt']} is in {path}, {len(content)} bytes")
