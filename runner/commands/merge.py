"""python -m runner merge RUN... -o RUN: shards of one run become one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.errors import ConfigError, RunnerError
from runner.merge import merge


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code: 0, 1 failed, 2 what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m runner merge",
        description="Merge shards of one run. The merged run can be scored and resumed as any other.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="run directories of one configuration"
    )
    parser.add_argument("-o", "--output", metavar="RUN", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args(argv)
    try:
        merged = merge(arguments.runs, arguments.output)
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(
        f"{merged.n_trajectories} trajectories of {len(arguments.runs)} runs in {arguments.output} "
        f"({merged.n_duplicates} duplicates left out, {merged.n_failures} failures, "
        f"{merged.n_unfinished} unfinished)"
    )
    return 0
