from __future__ import annotations

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


def test_replaced_folder_is_not_followed(root: Path) -> None:
    """A folder that became a link is an error for reading and writing."""
    (root / "way").symlink_to("/etc")
    with pytest.raises(SandboxPathError):
        read_file(root, "way/passwd", 1000)
    with pytest.raises(SandboxPathError):
        write_file(root, "way/x", b"")


def test_write_leaves_no_temporary(root: Path, tmp_path: Path) -> None:
    """A write that fails leaves nothing behind."""
    before = sorted(root.rglob("*"))
    with pytest.raises(FileNotFoundError):
        write_file(root, "new.txt", tmp_path / "missing")
    with pytest.raises(SandboxPathError, match="is a folder"):
        write_file(root, "a", b"x")
    assert sorted(root.rglob("*")) == before


def test_read_is_capped(root: Path) -> None:
    """A file of just the limit is read; one byte more is an error that names the limit."""
    assert read_file(root, "top.txt", 7) == b"top.txt"
    with pytest.raises(SandboxPathError, match="max_read_bytes"):
        read_file(root, "top.txt", 6)
