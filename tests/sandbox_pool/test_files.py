from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_pool.errors import SandboxPathError
from sandbox_pool.files import read_file, write_file


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A working directory with a few files."""
    root = tmp_path / "work"
    (root / "a" / "b").mkdir(parents=True)
    for path in ("top.txt", "a/one.txt", "a/b/two.txt", "a/b/two.csv"):
        (root / path).write_text(path)
    return root


@pytest.fixture(name="work")
def _work(root: Path) -> Iterator[int]:
    """Its descriptor, by which it is known."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_replaced_folder_is_not_followed(root: Path, work: int) -> None:
    """A folder that became a link is an error for reading and writing."""
    (root / "way").symlink_to("/etc")
    with pytest.raises(SandboxPathError):
        read_file(work, "way/passwd", 1000)
    with pytest.raises(SandboxPathError):
        write_file(work, "way/x", b"")


def test_write_leaves_no_temporary(root: Path, work: int, tmp_path: Path) -> None:
    """A write that fails leaves nothing behind."""
    before = sorted(root.rglob("*"))
    with pytest.raises(FileNotFoundError):
        write_file(work, "new.txt", tmp_path / "missing")
    with pytest.raises(SandboxPathError, match="is a folder"):
        write_file(work, "a", b"x")
    assert sorted(root.rglob("*")) == before


def test_read_is_capped(work: int) -> None:
    """A file of just the limit is read; one byte more is an error that names the limit."""
    assert read_file(work, "top.txt", 7) == b"top.txt"
    with pytest.raises(SandboxPathError, match="max_read_bytes"):
        read_file(work, "top.txt", 6)


def test_rights_that_a_sandbox_took_from_itself(root: Path, work: int) -> None:
    """Where the sandbox forbade itself to write, the path is what is wrong, not the machine."""
    owner = 54_321 if os.geteuid() == 0 else None
    (root / "a").chmod(0o555)
    with pytest.raises(SandboxPathError, match="'a/x' cannot be written"):
        write_file(work, "a/x", b"", owner=owner)


def test_errors_of_the_machine_are_not_the_paths(work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of descriptors is an OSError: it says nothing about the path."""

    def no_more(folder: int, path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("sandbox_pool.files.open_beneath", no_more)
    with pytest.raises(OSError, match="Too many") as caught:
        read_file(work, "a/one.txt", 10)
    assert not isinstance(caught.value, SandboxPathError)
    with pytest.raises(OSError, match="Too many"):
        write_file(work, "a/one.txt", b"")


def test_source_that_is_no_file_is_named(root: Path, work: int, tmp_path: Path) -> None:
    """A folder cannot be put as a file, and nothing is made for it."""
    with pytest.raises(IsADirectoryError):
        write_file(work, "new/x", tmp_path)
    assert not (root / "new").exists()


def test_write_replaces_a_link(root: Path, work: int, tmp_path: Path) -> None:
    """What a link points to stays as it is."""
    (tmp_path / "outside").write_text("kept")
    (root / "top.txt").unlink()
    (root / "top.txt").symlink_to(tmp_path / "outside")
    write_file(work, "top.txt", b"new")
    assert (tmp_path / "outside").read_text() == "kept"
    assert (root / "top.txt").read_text() == "new"
    assert not (root / "top.txt").is_symlink()


def test_lease_does_not_hang_a_read(root: Path, work: int) -> None:
    """A file that a process of the sandbox has leased is read, or refused, at once."""
    with (root / "top.txt").open("r+b") as held:
        if sys.platform != "linux" or os.fstat(held.fileno()).st_uid != os.geteuid():
            pytest.skip("leases are Linux's, and for owners")
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        try:
            with pytest.raises(SandboxPathError, match="cannot be read"):
                read_file(work, "top.txt", 10)
        finally:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, signal.SIG_DFL)
