"""Imports one module of the model's and calls its functions: the child process of programs.py.

Usage: `call.py MODULE RESULT_FD`, with the calls as JSON on standard input. Each result is written at
once as a line of JSON, so that a call which ends the process loses no earlier result.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
MAX_MESSAGE_CHARS = 200


def main(module_path: str, result_fd: int) -> None:
    """Import the module, make the calls that standard input lists, write the results to `result_fd`."""
    calls = json.load(sys.stdin)
    try:
        module = _load(Path(module_path))
    except BaseException as error:  # noqa: BLE001 - the model's code raises what it likes
        _write(result_fd, {"import_problem": f"importing it raised {_describe(error)}"})
        return
    for call in calls:
        _write(result_fd, _call(module, call))


def _load(path: Path) -> Any:
    sys.path[0] = str(path.parent)  # the module's neighbours, and no longer ours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _call(module: Any, call: dict[str, Any]) -> dict[str, Any]:
    function = getattr(module, call["function"], None)
    if not callable(function):
        return {"problem": f"the module has no function {call['function']!r}"}
    try:
        value = function(*call["args"], **call["kwargs"])
    except BaseException as error:  # noqa: BLE001 - as above
        names = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
        return {"raises": names, "message": _describe(error)}
    try:
        return {"returns": _plain(value, 0)}
    except Exception as error:  # noqa: BLE001 - values of its classes run its code
        return {"problem": f"what it returned is no JSON value: {_describe(error)}"}


def _plain(value: Any, depth: int) -> Any:
    """Return `value` as JSON has it: tuples as lists, sets as sorted lists, numpy's numbers as numbers."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, float) and value - value != 0:
        return {"float": str(value)}  # no JSON number, and equal to none that a check can expect
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_plain(item, depth + 1) for item in _sorted(value)]
    raise ValueError(f"a {type(value).__name__}")


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def _sorted(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _describe(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - as above
        text = type(error).__name__
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", text.replace(os.getcwd() + "/", ""))[:MAX_MESSAGE_CHARS]  # noqa: PTH109


def _write(fd: int, result: dict[str, Any]) -> None:
    try:
        line = json.dumps(result, allow_nan=False)
    except Exception as error:  # noqa: BLE001 - as above
        line = json.dumps({"problem": f"what it returned is no JSON value: {_describe(error)}"})
    os.write(fd, line.encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
