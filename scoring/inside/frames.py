"""Tables as pandas reads them, as facts. Runs inside a sandbox: see extract.py.

The formulas are those of PyBench's unit tests, which were written for pandas 2: there, text columns have
the dtype `object`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tables  # type: ignore[import-not-found] # our neighbour, in the sandbox

MAX_COLUMNS = 5_000
MAX_CELLS = 20_000_000
MAX_COMMAS = 100_000
"""In a line, those in quotes included: far more than MAX_COLUMNS."""

DEFAULT_FENCE = 1.5


def load(path: Path) -> Any:
    """Return a CSV or XLSX file as a data frame. Raises ValueError for one that is too large to read."""
    import pandas as pd

    if path.suffix.lower() in (".xlsx", ".xls", ".xlsm"):
        tables.refuse_zip_bomb(path)
        # Said, for what the file looks like inside could ask for a package that is not there.
        frame = pd.read_excel(path, engine="openpyxl")
    else:
        _refuse_wide(path)
        frame = pd.read_csv(path, low_memory=False)
    if frame.shape[1] > MAX_COLUMNS or frame.size > MAX_CELLS:
        raise ValueError(
            f"{frame.shape[0]:,} rows of {frame.shape[1]:,} columns are more than the scorer reads"
        )
    return frame


def _refuse_wide(path: Path) -> None:
    """Raise ValueError when a row is so wide that pandas would work at it for minutes."""
    with path.open(encoding="latin-1") as lines:
        if any(line.count(",") > MAX_COMMAS for line in lines):
            raise ValueError(f"a line with more than {MAX_COMMAS:,} commas is wider than the scorer reads")


def read_frame(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return rows, null cells and repeated rows, and what else is asked for: order, outliers, dates."""
    frame = load(path)
    facts: dict[str, Any] = {
        "columns": [str(name) for name in frame.columns],
        "n_rows": len(frame),
        "n_nulls": int(frame.isnull().sum().sum()),
        "n_duplicate_rows": int(frame.duplicated().sum()),
    }
    if "by" in request:
        by, ascending = request["by"], request["ascending"]
        one = len(by) == 1
        in_order = frame.sort_values(by=by[0] if one else by, ascending=ascending[0] if one else ascending)
        facts["is_sorted"] = bool(frame.equals(in_order))
    if "k" in request:
        facts["n_outliers"] = n_outliers(frame, request["k"])
    if "column" in request:
        facts["are_dates"] = _are_dates(frame[request["column"]])
    return facts


def n_outliers(frame: Any, k: float = DEFAULT_FENCE) -> int:
    """Return how many numbers lie further than k interquartile ranges from the quartiles of their column."""
    numbers = frame.select_dtypes(include=["float64", "int"])
    low, high = numbers.quantile(0.25), numbers.quantile(0.75)
    beyond = (numbers < low - k * (high - low)) | (numbers > high + k * (high - low))
    return int(beyond.sum().sum())


def _are_dates(column: Any) -> bool:
    import pandas as pd

    try:
        pd.to_datetime(column)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def read_frames(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the text columns of several tables that hold numbers only, as PyBench's test 9 finds them."""
    found = []
    for name in [request["path"], *request["more"]]:
        frame = load(root / name)
        found += [f"{name}: {column}" for column in frame.columns if _is_numeric_text(frame[column])]
    return {"numeric_text_columns": found}


def _is_numeric_text(column: Any) -> bool:
    import pandas as pd

    if column.dtype != "object" and not isinstance(column.dtype, pd.StringDtype):
        return False
    column = column.astype(object)
    try:
        # The second replace is the one of whole cells, not of text: upstream's own slip.
        pd.to_numeric(column.str.replace(",", "").replace("$", ""), errors="raise")
    except ValueError:
        return False
    return True
