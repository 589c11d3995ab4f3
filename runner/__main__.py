"""python -m runner: run a benchmark, and look after runs. `--help` lists the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = {
    "run": "runner.commands.run",
    "show": "runner.commands.show",
    "merge": "runner.commands.merge",
    "ctl": "runner.commands.ctl",
    "sweep": "runner.commands.sweep",
}
"""Each module has `main(argv) -> int`. Imported when it is used: `ctl` need not load a sandbox pool."""

EXIT_PIPE = 141
"""As a shell reports a program that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; without the name of a command it is `run`. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    command: Callable[[list[str]], int] = import_module(COMMANDS[name]).main
    try:
        code = command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        _stop_writing()
        return EXIT_PIPE
    return code


def _stop_writing() -> None:
    """Let what is left in the buffers go nowhere: it must not fail again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
