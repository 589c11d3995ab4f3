"""`python -m scoring RUN_DIR`, and the other commands: looks at the first word, hands the rest on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

COMMANDS: Mapping[str, tuple[str, str]] = {
    "score": ("scoring.commands.score", "score a run; the default: `python -m scoring RUN_DIR`"),
    "pybench": ("scoring.commands.pybench", "score a run of PyBench's own form, a file and a folder"),
    "export": ("scoring.export", "write a run as PyBench's trajectory.jsonl"),
    "judge": ("scoring.commands.judge", "let a language model compare two runs, task by task"),
}
"""By the first word: a module with `main`, and what it is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 2 for what the user can mend, 1 for what failed, 130."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("\n".join(_usage()), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    command = words.pop(0) if words[0] in COMMANDS else "score"
    module = import_module(COMMANDS[command][0])
    try:
        code = int(module.main(words))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("scoring: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head`; the interpreter's own flush at its end must find a place
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _usage() -> list[str]:
    width = max(map(len, COMMANDS))
    listed = [f"  {name:<{width}}  {words}" for name, (_, words) in COMMANDS.items()]
    return [
        "usage: python -m scoring RUN_DIR, or python -m scoring COMMAND ...",
        "",
        "Score runs, offline.",
        *listed,
        "",
        "python -m scoring COMMAND --help says more.",
    ]


if __name__ == "__main__":
    sys.exit(main())
