"""Whatever bytes a journal holds: only lines of ours are read, all of them, and damage is named."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.encoding import encode_line
from runner.errors import JournalError
from runner.journal import TRAJECTORIES, read_trajectories
from runner.journal.lines import repair_torn_line
from tests.runner.factories import trajectory

LINES = [
    encode_line(trajectory(f"s{number}", error=text))
    for number, text in enumerate(["", "é\u2028", "x" * 5000, "\n\r\0", '"}{'])
]
ROWS = [json.loads(line) for line in LINES]

whole = st.lists(st.sampled_from(range(len(LINES))), max_size=6)
junk = st.binary(min_size=1, max_size=60) | st.sampled_from(
    [
        b"\0" * 4096,
        b"\r\n",
        b"{}\n",
        b"[1]\n",
        b'{"attempt": 1}\n',
        b"\xff\xfe",
        b"\n\n",
        LINES[2] * 2,
        b"null\n",
    ]
)


def read(content: bytes, *, repair: bool = False) -> tuple[list[Any], str | None, bytes]:
    """Return the rows, the error, and what the file holds afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TRAJECTORIES
        path.write_bytes(content)
        if repair:
            repair_torn_line(path)
        rows: list[Any] = []
        try:
            rows.extend(read_trajectories(Path(folder)))
        except JournalError as error:
            rows = list(read_prefix(Path(folder)))
            return rows, str(error), path.read_bytes()
        return rows, None, path.read_bytes()


def read_prefix(folder: Path) -> Any:
    reader = read_trajectories(folder)
    while True:
        try:
            yield next(reader)
        except (StopIteration, JournalError):
            return


@settings(deadline=None)
@given(whole, st.sampled_from(range(len(LINES))), st.data())
def test_torn_tail_is_left_out_and_cut(numbers: list[int], last: int, data: st.DataObject) -> None:
    """A line that was cut anywhere is not read; a repair takes it away, and nothing else."""
    kept = b"".join(LINES[number] for number in numbers)
    torn = LINES[last][: data.draw(st.integers(0, len(LINES[last]) - 1))]
    for repair in (False, True):
        rows, error, content = read(kept + torn, repair=repair)
        assert (rows, error) == ([ROWS[number] for number in numbers], None)
        assert content == (kept if repair else kept + torn)


@settings(deadline=None)
@given(whole, junk, whole)
def test_damage_is_named_and_never_read(before: list[int], damage: bytes, after: list[int]) -> None:
    """What precedes the damage is read; no row comes out that was not written; the error names file and line."""
    content = b"".join(LINES[n] for n in before) + damage + b"".join(LINES[n] for n in after)
    rows, error, _ = read(content)
    assert rows[: len(before)] == [ROWS[n] for n in before]
    assert all(row in ROWS for row in rows)
    if error is None:
        return
    place = re.search(rf"{TRAJECTORIES}:(\d+): ", error)
    assert place is not None
    assert int(place[1]) == len(rows) + 1


@settings(deadline=None)
@given(st.sampled_from(range(len(LINES))), st.sampled_from(range(len(LINES))), st.data())
def test_interleaved_writers(one: int, other: int, data: st.DataObject) -> None:
    """Two lines written into each other give either line, or an error, never something else."""
    a, b = LINES[one], LINES[other]
    content = b""
    while a or b:
        n, m = data.draw(st.integers(0, len(a))), data.draw(st.integers(0, len(b)))
        if not n and not m:
            n, m = len(a), len(b)
        content += a[:n] + b[:m]
        a, b = a[n:], b[m:]
    rows, _, _ = read(content)
    assert all(row in (ROWS[one], ROWS[other]) for row in rows)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_an_error_or_nothing(content: bytes) -> None:
    """No other exception, no row out of nothing; a repair keeps every whole line and can be done twice."""
    rows, _, _ = read(content)
    assert rows == []
    _, _, once = read(content, repair=True)
    _, _, twice = read(once, repair=True)
    assert once == twice
    assert content.startswith(once)
    assert once == b"" or once.endswith(b"\n")
