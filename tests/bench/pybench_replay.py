"""How a replay of a recorded PyBench run compares with the recording: cells, errors, wall time.

    python -m runner --config configs/pybench.yaml --model replay:FILE --set data.root=DIR --run-dir RUN
    python -m tests.bench.pybench_replay FILE RUN

A recorded cell ended in an error when the observation that follows it holds upstream's error text.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from runner.journal import read_events, read_trajectories
from runner.protocols import Fenced

ERROR_SIGN = "There are some errors in the code."
"""Upstream worded the rest of this line in several ways."""


@dataclass(frozen=True)
class Cell:
    """One executed cell."""

    attempt: str
    n_turn: int
    error: str | None
    """The exception's name, or None."""

    evalue: str = ""


def recorded_cells(path: Path) -> dict[tuple[str, int], Cell]:
    """Return the cells that the recorded run executed and whose observation it holds."""
    cells = {}
    protocol = Fenced(None)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = row.get("messages") or []
        n_turn = 0
        for message, following in zip(messages, [*messages[1:], None], strict=False):
            if message["role"] != "assistant":
                continue
            n_turn += 1
            if following is None or not protocol.parse(message["content"], "stop").actions:
                continue
            _, found, after = following["content"].partition(ERROR_SIGN)
            name, _, evalue = after.partition("\nError: ")[2].partition("\n")
            attempt = row["index"] + "@1"
            cells[attempt, n_turn] = Cell(attempt, n_turn, name if found else None, evalue)
    return cells


def replayed_cells(run_dir: Path) -> dict[tuple[str, int], Cell]:
    """Return the cells that our run executed."""
    cells = {}
    for row in read_trajectories(run_dir):
        for n_turn, turn in enumerate(row["turns"], start=1):
            observation = turn["observation"]
            if observation is None:
                continue
            error = next((o for o in observation["outputs"] if o["type"] == "error"), None)
            name = (
                error["ename"] if error else None if observation["status"] == "ok" else observation["status"]
            )
            evalue = error["evalue"] if error else ""
            cells[row["attempt"], n_turn] = Cell(row["attempt"], n_turn, name, evalue)
    return cells


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recorded", type=Path, metavar="FILE")
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    arguments = parser.parse_args()

    recorded, replayed = recorded_cells(arguments.recorded), replayed_cells(arguments.run_dir)
    both = sorted(recorded.keys() & replayed.keys())
    n_then = sum(1 for key in both if recorded[key].error)
    n_now = sum(1 for key in both if replayed[key].error)
    wall_s = sum(
        event["wall_s"] for event in read_events(arguments.run_dir) if event["event"] == "run_finished"
    )
    print(f"cells executed now: {len(replayed)}; also in the recording: {len(both)}")
    print(f"ended in an error in the recording: {n_then} ({n_then / len(both):.1%})")
    print(f"ended in an error now:              {n_now} ({n_now / len(both):.1%})")
    print(f"wall time: {wall_s:.0f} s")
    for title, only in (
        ("errors now, none then", [replayed[k] for k in both if replayed[k].error and not recorded[k].error]),
        ("errors then, none now", [recorded[k] for k in both if recorded[k].error and not replayed[k].error]),
    ):
        print(f"\n{title}: {len(only)}")
        for (error, evalue), n in Counter(
            (str(c.error), c.evalue.split("\n")[0][:90]) for c in only
        ).most_common():
            where = ", ".join(
                f"{c.attempt} turn {c.n_turn}"
                for c in only
                if (c.error, c.evalue.split("\n")[0][:90]) == (error, evalue)
            )
            print(f"  {n} x {error}: {evalue} ({where[:60]})")


if __name__ == "__main__":
    main()
