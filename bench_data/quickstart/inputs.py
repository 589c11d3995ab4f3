"""Input files from a seed: the same bytes at every call, on every machine and Python version.

Archives are stored, not compressed, because two versions of zlib may pack the same data differently;
and Office files are written by hand, because openpyxl puts the time of writing into them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
import sqlite3
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar
from xml.sax.saxutils import escape

T = TypeVar("T")
Cell = str | int | float | date | None

SQLITE_VERSION_AT = slice(96, 100)
"""Where an SQLite file says which version of the library wrote it last."""


class Draw:
    """Numbers from a seed.

    Only `random.Random.random()` is used: Python promises its sequence for an integer seed, but not that
    of `randint`, `choice` or `shuffle`.
    """

    def __init__(self, name: str) -> None:
        self._random = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, things: Sequence[T]) -> T:
        """Return one of the things."""
        return things[self.integer(0, len(things) - 1)]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def shuffled(self, things: Iterable[T]) -> list[T]:
        """Return the things in another order."""
        rest = list(things)
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in range(len(rest))]

    def bell(self, mean: float, deviation: float) -> float:
        """Return a number that is about normally distributed (the sum of twelve uniform ones)."""
        # fsum, because sum() rounds floats differently since Python 3.12.
        return mean + deviation * (math.fsum(self._random.random() for _ in range(12)) - 6.0)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """Return a UTF-8 CSV file; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def json_bytes(value: Any) -> bytes:
    """Return an indented UTF-8 JSON file."""
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def sqlite_bytes(script: str, tables: Mapping[str, Iterable[Sequence[Cell]]]) -> bytes:
    """Return an SQLite file: the tables that the script creates, with these rows."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript("PRAGMA page_size = 4096; PRAGMA encoding = 'UTF-8';" + script)
        for table, rows in tables.items():
            for row in rows:
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
        connection.commit()
        content = bytearray(connection.serialize())
    finally:
        connection.close()
    content[SQLITE_VERSION_AT] = bytes(4)
    return bytes(content)


def xlsx_bytes(sheets: Mapping[str, Sequence[Sequence[Cell]]]) -> bytes:
    """Return a workbook with these sheets (at most 26 columns); a date is a real date cell."""
    parts = {
        "[Content_Types].xml": _content_types(len(sheets)),
        "_rels/.rels": _relations(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": _workbook(list(sheets)),
        "xl/_rels/workbook.xml.rels": _relations(
            ("styles", "styles.xml"),
            *(("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)),
        ),
        "xl/styles.xml": _STYLES,
        **{f"xl/worksheets/sheet{n}.xml": _sheet(rows) for n, rows in enumerate(sheets.values(), 1)},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, text in parts.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # else it says which kind of machine this is
            archive.writestr(info, '<?xml version="1.0" encoding="UTF-8"?>\n' + text)
    return packed.getvalue()


_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border/></borders>'
    '<cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="2"><xf xfId="0"/><xf xfId="0" numFmtId="14" applyNumberFormat="1"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>'
    "</styleSheet>"
)


def _content_types(n_sheets: int) -> str:
    overrides = [("/xl/workbook.xml", "sheet.main"), ("/xl/styles.xml", "styles")]
    overrides += [(f"/xl/worksheets/sheet{n}.xml", "worksheet") for n in range(1, n_sheets + 1)]
    return (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        + "".join(
            f'<Override PartName="{name}" ContentType="{_TYPE}.{kind}+xml"/>' for name, kind in overrides
        )
        + "</Types>"
    )


def _relations(*targets: tuple[str, str]) -> str:
    links = (
        f'<Relationship Id="rId{n}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for n, (kind, target) in enumerate(targets, start=1)
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{"".join(links)}</Relationships>'


def _workbook(names: Sequence[str]) -> str:
    sheets = (
        # rId1 is the style sheet.
        f'<sheet name="{escape(name)}" sheetId="{n}" r:id="rId{n + 1}"/>'
        for n, name in enumerate(names, start=1)
    )
    return f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{"".join(sheets)}</sheets></workbook>'


def _sheet(rows: Sequence[Sequence[Cell]]) -> str:
    lines = (
        f'<row r="{y}">'
        + "".join(_cell(f"{chr(64 + x)}{y}", value) for x, value in enumerate(row, 1))
        + "</row>"
        for y, row in enumerate(rows, start=1)
    )
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def _cell(place: str, value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, date):
        return f'<c r="{place}" s="1"><v>{(value - date(1899, 12, 30)).days}</v></c>'
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f'<c r="{place}"><v>{value!r}</v></c>'
