"""What loading a pickle would do, as facts, without loading it. Runs inside a sandbox: see extract.py.

PyBench's unit tests load what the model has written, which runs any code that it names. Here its opcodes
are walked: whether it is whole, and which names it would import.
"""

from __future__ import annotations

import pickletools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_NAMES = 2_000
MAX_OPCODES = 10_000_000
"""Hundreds of times what a fitted model takes. Without a bound, how fast the machine is would decide."""

MAX_TEXTS = 100_000
UNTOLD = "a name that only running it would tell"

IMPORTABLE = frozenset({
    "_codecs", "array", "builtins", "collections", "copyreg", "datetime", "decimal", "fractions",
    "functools", "itertools", "joblib", "math", "numpy", "operator", "pandas", "random", "scipy", "sklearn",
    "statsmodels", "types",
})  # fmt: skip
"""Packages whose names upstream's tests could import."""


def read_pickle(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the names that loading it imports, and those of them that cannot be. Raises ValueError."""
    names = sorted(set(_names(path)))
    unknown = [name for name in names if name.partition(".")[0] not in IMPORTABLE]
    return {"names": names[:MAX_NAMES], "unknown": unknown[:MAX_NAMES]}


def walk(path: Path) -> tuple[list[str], list[str], str | None]:
    """Return the names that are imported, the texts that are pushed, and what ended the walk too early."""
    names: list[str] = []
    texts: list[str] = []
    problem = None
    try:
        for name in _names(path, texts):
            if len(names) < MAX_NAMES and name not in names:
                names.append(name)
    except Exception as error:  # noqa: BLE001 - what is no opcode can make the walk raise anything
        problem = f"{type(error).__name__}: {error}"
    return names, texts, problem


def _names(path: Path, texts: list[str] | None = None) -> Iterator[str]:
    """Yield each name that an opcode imports. Raises ValueError where the pickle is not whole.

    The text operands of the last two pushes are those of a STACK_GLOBAL; with a memo in between they may
    have been pushed long before.
    """
    memo: dict[int, Any] = {}
    pushed: deque[Any] = deque([None, None], maxlen=2)
    with path.open("rb") as stream:
        for opcode, argument, _ in _opcodes(stream):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".", 1)
                pushed.append(None)
            elif opcode.name == "STACK_GLOBAL":
                module, name = pushed
                told = isinstance(module, str) and isinstance(name, str)
                yield f"{module}.{name}" if told else UNTOLD
                pushed.append(None)
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(argument)] = pushed[-1]
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                pushed.append(memo.get(int(argument)))
            elif opcode.name not in ("PROTO", "FRAME", "MARK", "STOP"):
                pushed.append(argument if isinstance(argument, str) else None)
                if texts is not None and isinstance(argument, str) and len(texts) < MAX_TEXTS:
                    texts.append(argument)


def _opcodes(stream: BinaryIO) -> Iterator[tuple[Any, Any, Any]]:
    for n_opcodes, found in enumerate(pickletools.genops(stream), start=1):
        if n_opcodes > MAX_OPCODES:
            raise ValueError(f"more opcodes than the scorer reads ({MAX_OPCODES:,})")
        yield found
