from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_pool.beneath import sync_all
from sandbox_pool.collect import CollectLimits, collect, compile_globs


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


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*", "x", True),
        ("*", "a/x", False),
        ("**", "a/b/x", True),
        ("**/*", "x", True),
        ("**/*", "a/x", True),
        ("a/**/x", "a/x", True),
        ("a/**/x", "a/b/c/x", True),
        ("a/**", "b/x", False),
        ("./a/?.txt", "a/1.txt", True),
        ("a.b", "axb", False),
        ("[x]", "[x]", True),
        ("*", "line\nbreak", True),
    ],
)
def test_globs(glob: str, path: str, expected: bool) -> None:
    """A star stays within a component, two span any number, all else is literal."""
    assert bool(compile_globs([glob]).match(path)) is expected


def test_no_globs_match_nothing(work: int) -> None:
    """Without a glob nothing is taken."""
    assert collect(work, [], limits=CollectLimits()) == []


def test_collect_returns_content(work: int) -> None:
    """Matching files come in order, with size, digest and content."""
    files = collect(work, ["**/*.txt"], limits=CollectLimits())
    assert [file.path for file in files] == ["a/b/two.txt", "a/one.txt", "top.txt"]
    for file in files:
        assert file.data == file.path.encode()
        assert (file.n_bytes, file.sha256) == (len(file.path), hashlib.sha256(file.path.encode()).hexdigest())


def test_collect_is_capped(work: int) -> None:
    """Files over the caps in number and bytes are named, not taken."""
    by_number = collect(work, ["**"], limits=CollectLimits(max_files=2))
    assert sum(file.problem is None for file in by_number) == 2
    assert all("max_collect_files" in file.problem for file in by_number if file.problem)
    by_bytes = collect(work, ["**"], limits=CollectLimits(max_bytes=10))
    assert sum(file.n_bytes for file in by_bytes) <= 10
    assert any("max_collect_bytes" in (file.problem or "") for file in by_bytes)


def test_problems_are_capped(root: Path, work: int) -> None:
    """However much is not taken, the list of it stays short and says that it does."""
    for number in range(300):
        (root / f"link{number}").symlink_to("/etc/passwd")
    files = collect(work, ["link*"], limits=CollectLimits())
    assert len(files) == 100
    assert sum(file.problem == "and more that were not taken" for file in files) == 1


def test_collect_into_does_not_follow(work: int, tmp_path: Path) -> None:
    """A copy goes below `into`; a link that waits there is not written through, the file is reported."""
    into = tmp_path / "into"
    into.mkdir()
    (into / "top.txt").symlink_to(tmp_path / "elsewhere")
    (file,) = collect(work, ["top.txt"], limits=CollectLimits(), into=into)
    assert file.problem == "cannot be copied: File exists"
    assert not (tmp_path / "elsewhere").exists()


def test_names_cannot_break_a_collect(root: Path, work: int, tmp_path: Path) -> None:
    """A path that is too long, or in the way of what is there, costs that file alone."""
    into = tmp_path / "into"
    (into / "top.txt").mkdir(parents=True)
    (into / "a" / "b").mkdir(parents=True)
    (into / "a" / "b" / "two.csv").write_text("mine")
    folder = os.open(root, os.O_RDONLY)
    for _ in range(16):  # each name is allowed, the path of the copy is too long
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("f" * 250, os.O_CREAT, dir_fd=folder))
    os.close(folder)
    files = collect(work, ["**"], limits=CollectLimits(), into=into)
    assert [file.path for file in files if file.problem is None] == ["a/b/two.txt", "a/one.txt"]
    assert sum("cannot be copied" in (file.problem or "") for file in files) == 3
    assert (into / "a" / "b" / "two.csv").read_text() == "mine"


def test_only_regular_files_are_taken(root: Path, work: int) -> None:
    """Links, fifos, sockets, devices, sparse giants and odd names are named with the reason, never opened."""
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo")
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(root, os.O_RDONLY)
    server.bind(f"/dev/fd/{folder}/socket" if sys.platform == "linux" else str(root / "socket"))
    os.close(folder)
    server.close()
    with (root / "giant").open("wb") as giant:
        giant.truncate(2**40)
    expected = {"link": "symbolic link", "fifo": "fifo", "socket": "socket", "giant": "too large"}
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        expected["device"] = "device"
    if sys.platform == "linux":
        Path(os.fsdecode(os.fsencode(root) + b"/\xff")).touch()
        expected["\\xff"] = "not UTF-8"
    files = collect(work, ["*"], limits=CollectLimits())
    problems = {file.path: file.problem for file in files if file.problem}
    assert problems.keys() == expected.keys()
    for path, problem in expected.items():
        assert problem in (problems[path] or "")
    assert [file.path for file in files if file.problem is None] == ["top.txt"]


def test_collect_ends_in_time(root: Path, work: int, tmp_path: Path) -> None:
    """When the time is up, what was not reached is named, and no half of a file stays behind."""
    (root / "many").mkdir()
    for number in range(3000):
        (root / "many" / f"{number:04}").write_bytes(b"x")
    into = tmp_path / "into"
    into.mkdir()
    files = collect(work, ["**"], limits=CollectLimits(max_files=10**6, max_s=0.005), into=into)
    (late,) = (file for file in files if file.problem)
    assert "max_collect_s" in (late.problem or "")
    taken = {file.path for file in files if file.problem is None}
    assert len(taken) < 3000
    assert {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()} == taken


def test_disk_of_ours_that_fails_is_an_error(work: int, tmp_path: Path) -> None:
    """That `into` cannot be written is never taken for a mistake of the sandbox."""
    into = tmp_path / "into"
    into.mkdir()
    (into / "a").symlink_to("/proc/self")  # nothing can be made there, not even by root
    with pytest.raises(OSError, match=r"No such file|not permitted|denied"):
        collect(work, ["a/one.txt"], limits=CollectLimits(), into=into)


@pytest.mark.parametrize("n_files", [3, 40])
def test_copies_are_on_disk_in_the_end(
    root: Path, work: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int
) -> None:
    """Every copy and its folder is synced: one by one, or with all of the file system where they are many."""
    for number in range(n_files):
        (root / f"{number}.new").touch()
    into = tmp_path / "into"
    into.mkdir()
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/dev/fd/{descriptor}").resolve().name)

    def sync_all(folder: Path) -> bool:
        synced.extend(path.name for path in (folder, *folder.iterdir()))
        return True

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("sandbox_pool.collect.sync_all", sync_all)
    collect(work, ["*.new"], limits=CollectLimits(), into=into)
    assert sorted(synced) == sorted(["into", *(f"{number}.new" for number in range(n_files))])


def test_many_files_are_synced_for_real(root: Path, work: int, tmp_path: Path) -> None:
    """The system takes the way for many files, and what is no folder of ours is an error."""
    for number in range(40):
        (root / f"{number}.new").touch()
    assert len(collect(work, ["*.new"], limits=CollectLimits(), into=tmp_path / "into")) == 40
    assert sync_all(tmp_path) is (sys.platform == "linux")
    with pytest.raises(FileNotFoundError):
        sync_all(tmp_path / "missing")
