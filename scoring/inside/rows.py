"""Tables beside the inputs that they were made of, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import datetime
import itertools
import json
import re
from pathlib import Path
from typing import Any

import documents  # type: ignore[import-not-found] # our neighbours, in the sandbox
import frames  # type: ignore[import-not-found]

MAX_COMPARED_CELLS = 2_000_000
MAX_LINES = 200_000
INDEX_COLUMN = "Unnamed: 0"
"""What pandas calls an index that was saved with the table."""

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read_rows(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how a table's rows relate to those of an input: known, repeated, in order, within its fences."""
    frame, ref = frames.load(path), frames.load(root / request["ref"])
    if frame.size + ref.size > MAX_COMPARED_CELLS:
        raise ValueError(f"more cells than the scorer compares ({MAX_COMPARED_CELLS:,})")
    frame.columns = [str(name).strip() for name in frame.columns]
    ref.columns = [str(name).strip() for name in ref.columns]
    names = [name for name in ref.columns if name != INDEX_COLUMN]
    shared = [name for name in names if name in frame.columns]
    facts: dict[str, Any] = {
        "columns": list(frame.columns),
        "missing_columns": [name for name in names if name not in frame.columns],
        "numeric_columns": list(frame.select_dtypes("number").columns),
        "n_rows": len(frame),
        "n_nulls": int(frame[shared].isnull().sum().sum()),
    }
    by = request["by"] or names
    if not set(by) <= set(frame.columns):
        return facts
    found, known = _keys(frame, by), set(_keys(ref, by))
    facts["n_unknown"] = sum(key not in known for key in found)
    facts["n_repeated"] = len(found) - len(set(found))
    if request["order_by"]:
        facts["is_ordered"] = _is_ordered(frame, request["order_by"], request["ascending"])
    if request["k"] is not None:
        facts["n_beyond"] = _n_beyond(frame, ref, request["k"], request["sigma"])
    return facts


def _keys(frame: Any, columns: list[str]) -> list[tuple[str, ...]]:
    return list(zip(*(map(_cell, frame[name]) for name in columns), strict=True))


def _cell(value: Any) -> str:
    """Return a cell's text, the same for 3, 3.0 and `3`."""
    try:
        return f"{float(value):.10g}"
    except (TypeError, ValueError):
        return " ".join(str(value).split())


def _is_ordered(frame: Any, columns: list[str], ascending: list[bool]) -> bool:
    """Tell whether no row should come before the one above it. Raises ValueError for text in a cell."""
    signs = [1 if up else -1 for up in ascending]
    rows = [
        tuple(sign * float(cell) for sign, cell in zip(signs, row, strict=True))
        for row in frame[columns].itertuples(index=False)
    ]
    return all(above <= below for above, below in itertools.pairwise(rows))


def _n_beyond(frame: Any, ref: Any, k: float, sigma: float | None) -> int:
    """Return how many numbers lie beyond what is usual in the input's column."""
    import pandas as pd

    n_beyond = 0
    for name in ref.select_dtypes("number").columns:
        if name not in frame.columns:
            continue
        low, high = _fences(ref[name], k, sigma)
        numbers = pd.to_numeric(frame[name], errors="coerce")
        n_beyond += int(((numbers < low) | (numbers > high)).sum())
    return n_beyond


def _fences(column: Any, k: float, sigma: float | None) -> tuple[float, float]:
    low, high = column.quantile(0.25), column.quantile(0.75)
    low, high = low - k * (high - low), high + k * (high - low)
    if sigma is not None:
        low = min(low, column.mean() - sigma * column.std())
        high = max(high, column.mean() + sigma * column.std())
    return float(low), float(high)


def read_dates(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how many cells of a column are YYYY-MM-DD, and how many of them the input's dates."""
    column = request["column"]
    found = [str(cell).strip() for cell in frames.load(path)[column]]
    right = [_iso(str(cell), request["format"]) for cell in frames.load(root / request["ref"])[column]]
    n_same = sum(a == b for a, b in zip(sorted(found), sorted(right), strict=False))
    return {
        "n_rows": len(found),
        "n_iso": sum(_ISO_DATE.fullmatch(cell) is not None for cell in found),
        "n_same": n_same,
        "n_reference": len(right),
    }


def _iso(cell: str, pattern: str) -> str:
    return datetime.datetime.strptime(cell.strip(), pattern).date().isoformat()  # noqa: DTZ007 - a day


def read_json_lines(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how many lines there are, how many are objects with text at all keys, and those keys' values."""
    lines = [line for line in documents.decode(path).splitlines() if line.strip()][:MAX_LINES]
    good = [
        value for value in map(_object, lines) if all(isinstance(value.get(k), str) for k in request["keys"])
    ]
    values = {key: sorted({value[key][:40] for value in good})[:50] for key in request["keys"]}
    return {"n_lines": len(lines), "n_good": len(good), "values": values}


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
