"""CSV and XLSX tables and SQLite queries, as facts. Runs inside a sandbox: see extract.py.

Cells of a CSV file are reported as the text they are: whether `007` is a number is for the check to
say, not for a reader to guess.
"""

from __future__ import annotations

import csv
import datetime
import io
import sqlite3
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MAX_CELLS = 200_000
MAX_ROWS = 100_000
MAX_UNZIPPED_BYTES = 64 * 2**20
MAX_ZIP_ENTRIES = 2_000
MAX_QUERY_S = 10.0


def read_table(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return `columns` (the first row) and `rows` (the others) of a CSV, TSV or XLSX file."""
    if path.suffix.lower() in (".xlsx", ".xlsm"):
        rows = _xlsx_rows(path, request["sheet"])
    else:
        rows = _csv_rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    if not rows:
        raise ValueError("it is empty")
    return {"columns": rows[0], "rows": rows[1:]}


def read_sqlite(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the rows of the requested query; the file is opened as one that nobody writes to."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    deadline = time.monotonic() + MAX_QUERY_S
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        return {"rows": _capped(connection.execute(request["query"]))}
    except sqlite3.OperationalError as error:
        if time.monotonic() > deadline:
            raise ValueError(f"the query ran for more than {MAX_QUERY_S:g} s") from None
        raise ValueError(f"the query failed: {error}") from None
    finally:
        connection.close()


def _csv_rows(path: Path, delimiter: str) -> list[list[Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None
    return _capped(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)


def _xlsx_rows(path: Path, sheet: str | None) -> list[list[Any]]:
    refuse_zip_bomb(path)
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        sheets = {worksheet.title: worksheet for worksheet in book.worksheets}
        name = sheet if sheet is not None else next(iter(sheets), None)
        if name not in sheets:
            raise ValueError(f"no sheet {name!r}; it has {', '.join(sheets) or 'none'}"[:200])
        sheets[name].reset_dimensions()  # the file's own claim about its size need not be true
        rows = _capped(sheets[name].iter_rows(values_only=True))
    finally:
        book.close()
    return _trimmed(rows)


def refuse_zip_bomb(path: Path) -> None:
    """Raise ValueError when the archive says that it unpacks to too much; no entry can exceed its claim."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        raise ValueError("not an XLSX file: it is no zip archive") from None
    n_bytes = sum(entry.file_size for entry in entries)
    if n_bytes > MAX_UNZIPPED_BYTES or len(entries) > MAX_ZIP_ENTRIES:
        raise ValueError(
            f"it unpacks to {n_bytes:,} bytes in {len(entries):,} entries, more than the scorer reads "
            f"({MAX_UNZIPPED_BYTES:,} in {MAX_ZIP_ENTRIES:,})"
        )


def _capped(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return all rows with JSON cells. Raises ValueError when there are too many to compare."""
    kept: list[list[Any]] = []
    n_cells = 0
    for row in rows:
        n_cells += len(row)
        if n_cells > MAX_CELLS or len(kept) >= MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells")
        kept.append([_plain(cell) for cell in row])
    return kept


def _trimmed(rows: list[list[Any]]) -> list[list[Any]]:
    """Drop empty rows at the end and empty cells beyond the header, which formatting leaves behind."""
    while rows and all(cell is None for cell in rows[-1]):
        rows.pop()
    if not rows:
        return rows
    width = max((index + 1 for row in rows for index, cell in enumerate(row) if cell is not None), default=0)
    return [(row + [None] * width)[:width] for row in rows]


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat() if cell.time() == datetime.time() else cell.isoformat(" ")
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    if isinstance(cell, bytes):
        return f"x'{cell.hex()}'"
    if isinstance(cell, float) and cell - cell != 0:  # NaN and infinities are no JSON numbers
        return str(cell)
    return cell if cell is None or isinstance(cell, (bool, int, float, str)) else str(cell)
