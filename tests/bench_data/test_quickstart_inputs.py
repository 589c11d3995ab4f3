from __future__ import annotations

import io
import sqlite3
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from bench_data.quickstart.inputs import Cell, Draw, csv_bytes, sqlite_bytes, xlsx_bytes


def test_draws_depend_on_the_name_alone() -> None:
    """Two draws of one name agree number by number; another name gives others."""
    numbers = [Draw("a").integer(0, 10**9), Draw("a").integer(0, 10**9), Draw("b").integer(0, 10**9)]
    assert numbers[0] == numbers[1] != numbers[2]


def test_integers_reach_both_ends_and_shuffles_lose_nothing() -> None:
    """Bounds are inclusive, and a shuffle is a permutation."""
    draw = Draw("ends")
    assert set(Counter(draw.integer(3, 5) for _ in range(200))) == {3, 4, 5}
    assert sorted(draw.shuffled(range(50))) == list(range(50))


def test_bell_is_about_normal() -> None:
    """Mean and deviation come out as asked, within what 2000 draws allow."""
    draw = Draw("bell")
    numbers = [draw.bell(10, 2) for _ in range(2000)]
    mean = sum(numbers) / len(numbers)
    assert mean == pytest.approx(10, abs=0.2)
    assert sum((n - mean) ** 2 for n in numbers) / len(numbers) == pytest.approx(4, abs=0.5)


def test_csv_quotes_and_leaves_missing_fields_empty() -> None:
    """None is an empty field, and a comma is quoted."""
    assert csv_bytes(["a", "b"], [(None, "x,y")]) == b'a,b\n,"x,y"\n'


def test_a_workbook_reads_back_with_its_types() -> None:
    """Sheets, numbers, text, gaps and real dates are there for openpyxl, without a warning."""
    rows: list[tuple[Cell, ...]] = [
        ("day", "°C", "note"),
        (date(2022, 3, 1), -1.5, "a < b & c"),
        (date(1999, 12, 31), None, "ß"),
    ]
    book = openpyxl.load_workbook(io.BytesIO(xlsx_bytes({"One & all": rows, "Two": [(7,)]})))
    assert book.sheetnames == ["One & all", "Two"]
    assert list(book["One & all"].values) == [
        ("day", "°C", "note"),
        (datetime(2022, 3, 1), -1.5, "a < b & c"),  # noqa: DTZ001 - a spreadsheet knows no zones
        (datetime(1999, 12, 31), None, "ß"),  # noqa: DTZ001
    ]
    assert list(book["Two"].values) == [(7,)]


def test_a_database_reads_back(tmp_path: Path) -> None:
    """SQLite opens the file, finds it sound and gives the rows back."""
    content = sqlite_bytes("CREATE TABLE t (a INTEGER, b TEXT);", {"t": [(1, "ä"), (2, None)]})
    path = tmp_path / "t.sqlite"
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, "ä"), (2, None)]
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
