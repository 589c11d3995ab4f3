"""Lines are written whole or not at all, and a torn end is cut."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import JournalError
from runner.journal import TRAJECTORIES
from runner.journal.lines import AppendOnlyFile, count_lines, read_lines, repair_torn_line


@given(rows=st.integers(0, 5), torn=st.binary(max_size=200).filter(lambda b: b"\n" not in b))
def test_torn_tail_is_cut_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, rows: int, torn: bytes
) -> None:
    """Whatever a killed writer left behind the last newline goes; every whole line stays."""
    path = tmp_path_factory.mktemp("torn") / "f.jsonl"
    whole = b"".join(orjson.dumps({"attempt": f"s{i}@1"}) + b"\n" for i in range(rows))
    path.write_bytes(whole + torn)

    n_cut = repair_torn_line(path)

    assert whole == path.read_bytes()
    assert len(torn) == n_cut


@given(st.integers(0, 400))
def test_file_cut_anywhere_loses_at_most_one_line(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A file cut at any byte keeps all lines that are whole before the cut."""
    path = tmp_path_factory.mktemp("cut") / TRAJECTORIES
    lines = [orjson.dumps({"attempt": f"s{i}@1", "text": "y" * 30}) + b"\n" for i in range(6)]
    content = b"".join(lines)
    cut = min(cut, len(content))
    path.write_bytes(content[:cut])

    repair_torn_line(path)

    n_whole = sum(1 for i in range(len(lines)) if len(b"".join(lines[: i + 1])) <= cut)
    assert b"".join(lines[:n_whole]) == path.read_bytes()


def test_zeros_after_a_power_cut_are_torn(tmp_path: Path) -> None:
    """A last line of NUL bytes, newline or not, is cut."""
    path = tmp_path / "f"
    path.write_bytes(b'{"a": 1}\n' + b"\0" * 5000 + b"\n" + b"\0" * 70_000)

    repair_torn_line(path)

    assert path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("end", [b"\0" * 5000 + b"\n", b'{"a": \0\0\0}\n', b"\0\n\0\n\0", b'{"a": 2'])
def test_what_a_repair_would_cut_is_not_read(tmp_path: Path, end: bytes) -> None:
    """Who reads without the lock, and so repairs nothing, finds the same lines."""
    path = tmp_path / "f"
    path.write_bytes(b'{"a": 1}\n' + end)

    assert list(read_lines(path, required=("a",))) == [{"a": 1}]


def test_zeros_in_the_middle_are_damage(tmp_path: Path) -> None:
    """Whole lines follow them: no power cut leaves that, and the error says where they are."""
    path = tmp_path / "f"
    path.write_bytes(b'{"a": 1}\n\0\0\n{"a": 3}\n')

    with pytest.raises(JournalError, match=r"f:2: not JSON"):
        list(read_lines(path, required=("a",)))


@given(st.binary(max_size=200))
def test_lines_are_counted_by_their_ends(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Across chunks too."""
    path = tmp_path_factory.mktemp("counted") / "f"
    path.write_bytes(content)

    assert count_lines(path, chunk_bytes=7) == content.count(b"\n")


def test_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """When the disk is full in the middle of a line, the part that was written is taken back."""
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from runner.errors import JournalError
        from runner.journal.lines import AppendOnlyFile
        file = AppendOnlyFile(Path(sys.argv[1]))
        file.append(b"x" * 999 + b"\\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        try:
            file.append(b"y" * 999 + b"\\n")
        except JournalError as error:
            print(error)
        """
    )
    path = tmp_path / "f"

    ran = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )

    assert "free some space and run the same command again" in ran.stdout
    assert path.read_bytes() == b"x" * 999 + b"\n"


def test_close_is_idempotent(tmp_path: Path) -> None:
    """Closing twice does nothing the second time."""
    file = AppendOnlyFile(tmp_path / "f")
    file.append(b"1\n")
    file.close()
    file.close()


def test_closed_file_takes_no_line(tmp_path: Path) -> None:
    """It raises what a caller expects of a file that cannot be written."""
    file = AppendOnlyFile(tmp_path / "f")
    file.close()
    with pytest.raises(JournalError, match="cannot write"):
        file.append(b"1\n")


def test_half_a_line_that_cannot_be_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before the next line is written, and until then nothing is."""
    file = AppendOnlyFile(tmp_path / "f")
    file.append(b"1\n")
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 4:
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, data[:4])

    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", half)
        patch.setattr("os.ftruncate", refuse)
        for line, reason in ((b"22222\n", "Input/output error"), (b"3\n", "Read-only file system")):
            with pytest.raises(JournalError, match=reason):
                file.append(line)
    file.append(b"4\n")
    file.close()
    assert (tmp_path / "f").read_bytes() == b"1\n4\n"
