"""Compares what a check expects with what a file or an answer holds. Pure; never raises on any value."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

MAX_DEPTH = 100
MAX_SHOWN_CHARS = 120

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MIDNIGHT = re.compile(r"[T ]00:00(:00(\.0+)?)?$")
_NULLS = frozenset({"", "na", "n/a", "nan", "nat", "none", "null", "<na>"})

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = MAX_SHOWN_CHARS
_shorten.maxlevel, _shorten.maxlist, _shorten.maxdict = 3, 8, 8


def show(value: Any) -> str:
    """Return a short text for any value, fit for a reason."""
    try:
        text = _shorten.repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits; a list in itself
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def is_number(value: Any) -> bool:
    """Tell whether a value is a JSON number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        found = float(value) if is_number(value) else math.nan
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole_number(value: Any) -> int | None:
    """Return an integer, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_close(expected: float, actual: Any, abs_tol: float, rel_tol: float = 0.0) -> bool:
    """Tell whether `actual` is a finite number within the larger of the two tolerances of `expected`."""
    if not is_number(actual):
        return False
    if expected == actual:
        return True
    try:
        # The last bits of a double must not decide whether 0.3 is within 0.1 of 0.2.
        limit = max(abs_tol, rel_tol * abs(expected)) + 1e-12 * abs(expected)
        return math.isfinite(actual) and abs(actual - expected) <= limit
    except OverflowError:
        return False


def difference(expected: Any, actual: Any, abs_tol: float) -> str | None:
    """Return where and how a JSON value differs from the expected one, or None.

    Numbers may differ by `abs_tol`; lists are in order; keys in any order; a bool is no number.
    """
    return _difference(expected, actual, abs_tol, "", 0)


def _difference(expected: Any, actual: Any, abs_tol: float, where: str, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"{where or 'the value'}: nested deeper than {MAX_DEPTH}"
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _dict_difference(expected, actual, abs_tol, where, depth)
    if isinstance(expected, list) and isinstance(actual, list):
        return _list_difference(expected, actual, abs_tol, where, depth)
    if _same_scalar(expected, actual, abs_tol):
        return None
    return f"{where or 'the value'}: {show(actual)}, expected {show(expected)}"


def _dict_difference(
    expected: dict[str, Any], actual: dict[str, Any], abs_tol: float, where: str, depth: int
) -> str | None:
    for key, value in expected.items():
        if key not in actual:
            return f"{where or 'the value'}: no key {show(key)}, expected {show(value)} there"
        found = _difference(value, actual[key], abs_tol, f"{where}[{show(key)}]", depth + 1)
        if found:
            return found
    extra = next((key for key in actual if key not in expected), None)
    return None if extra is None else f"{where or 'the value'}: unexpected key {show(extra)}"


def _list_difference(
    expected: list[Any], actual: list[Any], abs_tol: float, where: str, depth: int
) -> str | None:
    if len(expected) != len(actual):
        return f"{where or 'the value'}: {len(actual)} items, expected {len(expected)}: {show(actual)}"
    pairs = enumerate(zip(expected, actual, strict=True))
    found = (_difference(e, a, abs_tol, f"{where}[{index}]", depth + 1) for index, (e, a) in pairs)
    return next((text for text in found if text), None)


def _same_scalar(expected: Any, actual: Any, abs_tol: float) -> bool:
    if is_number(expected):
        return is_close(expected, actual, abs_tol)
    if isinstance(expected, dict | list):
        return False
    return type(expected) is type(actual) and bool(expected == actual)


def same_cell(expected: Any, actual: Any, abs_tol: float) -> bool:
    """Tell whether a cell of a table is the expected one, where a CSV file has nothing but text.

    A number may be text that reads as one; null is an empty cell or one of the words for it; a bool
    is `True` or `true`; a date may be followed by midnight; white space around text does not count.
    """
    if expected is None:
        return actual is None or (isinstance(actual, str) and actual.strip().lower() in _NULLS)
    if isinstance(actual, str):
        text = actual.strip()
        if isinstance(expected, bool):
            return text.lower() == str(expected).lower()
        if is_number(expected):
            return _NUMBER.fullmatch(text) is not None and is_close(expected, float(text), abs_tol)
        if isinstance(expected, str) and _DATE.fullmatch(expected.strip()):
            text = _MIDNIGHT.sub("", text)
        return isinstance(expected, str) and text == expected.strip()
    return _same_scalar(expected, actual, abs_tol)


def rows_difference(
    expected: Sequence[Sequence[Any]], actual: Sequence[Any], columns: Sequence[str], abs_tol: float
) -> str | None:
    """Return the first cell that differs, rows counted from 1 in order, or None."""
    for number, (row, found) in enumerate(zip(expected, actual, strict=False), start=1):
        if not isinstance(found, list) or len(found) != len(row):
            return f"row {number}: {show(found)}, expected {show(list(row))}"
        for column, cell, other in zip(columns, row, found, strict=False):
            if not same_cell(cell, other, abs_tol):
                return f"row {number}, column {column}: {show(other)}, expected {show(cell)}"
    return _count_difference(expected, actual)


def unordered_difference(
    expected: Sequence[Sequence[Any]], actual: Sequence[Any], abs_tol: float
) -> str | None:
    """Return the first expected row that is not among the actual ones, or None. Each serves once."""
    counted = _count_difference(expected, actual)
    if counted:
        return counted
    rest = list(actual)
    for row in expected:
        index = _index_of(rest, lambda found, row=row: _same_row(row, found, abs_tol))  # type: ignore[misc]
        if index is None:
            return f"no row {show(list(row))}"
        del rest[index]
    return None


def _same_row(expected: Sequence[Any], actual: Any, abs_tol: float) -> bool:
    return (
        isinstance(actual, list)
        and len(actual) == len(expected)
        and all(same_cell(e, a, abs_tol) for e, a in zip(expected, actual, strict=True))
    )


def _index_of(rows: Sequence[Any], fits: Callable[[Any], bool]) -> int | None:
    return next((index for index, row in enumerate(rows) if fits(row)), None)


def _count_difference(expected: Sequence[Any], actual: Sequence[Any]) -> str | None:
    return None if len(expected) == len(actual) else f"{len(actual)} rows, expected {len(expected)}"


def lines_difference(expected: Sequence[str], text: str) -> str | None:
    """Return the first line that differs, counted from 1, or None.

    White space at the end of a line and empty lines at the end of the text do not count.
    """
    wanted, found = _lines("\n".join(expected)), _lines(text)
    for number, (line, other) in enumerate(zip(wanted, found, strict=False), start=1):
        if line != other:
            return f"line {number}: {show(other)}, expected {show(line)}"
    if len(wanted) == len(found):
        return None
    return f"{len(found)} lines, expected {len(wanted)}"


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
