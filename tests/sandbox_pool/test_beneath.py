from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_pool import beneath
from sandbox_pool.beneath import acting_as, open_beneath
from sandbox_pool.collect import CollectLimits, collect
from sandbox_pool.files import make_folder, read_file, write_file

UID = 54_321
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root of a Linux system may act as others"
)


@pytest.fixture(name="system", params=["openat2", "walk"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of opening, wherever the tests run on a system that has both."""
    if request.param == "walk":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    elif not beneath.has_openat2():
        pytest.skip("this system has no openat2")
    return str(request.param)


@pytest.fixture(name="work")
def _work(tmp_path: Path) -> Iterator[int]:
    """The descriptor of a folder with files, and with ways out of it."""
    work = tmp_path / "work"
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "file").write_text("here")
    (tmp_path / "outside").write_text("outside")
    (work / "out").symlink_to(tmp_path / "outside")
    (work / "up").symlink_to("..")
    (work / "inner").symlink_to("a")
    (work / "self").symlink_to("self")
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_opens_what_lies_beneath(system: str, work: int) -> None:
    """Files and folders are opened, and do not reach a process that is exec'd."""
    for path, flags in (("a/b/file", os.O_RDONLY), ("a/b", os.O_DIRECTORY), (".", os.O_DIRECTORY)):
        descriptor = open_beneath(work, path, flags)
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


@pytest.mark.parametrize("path", ["out", "up/outside", "inner/b/file", "self", "inner"])
def test_no_link_is_followed(system: str, work: int, path: str) -> None:
    """A link is an error wherever it is on the way, and wherever it leads."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        os.close(open_beneath(work, path, os.O_RDONLY))
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


@pytest.mark.skipif(not beneath.has_openat2(), reason="what openat2 adds")
def test_nothing_leads_out_by_openat2(work: int) -> None:
    """Parents, absolute paths and mounts are refused by the system itself."""
    for folder, path in ((work, "../outside"), (work, "/etc/passwd")):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            os.close(open_beneath(folder, path, os.O_RDONLY))
        assert caught.value.errno == errno.EXDEV
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            os.close(open_beneath(top, "proc/version", os.O_RDONLY))
        assert caught.value.errno == errno.EXDEV
    finally:
        os.close(top)


def test_path_longer_than_the_system_allows(system: str, work: int) -> None:
    """What lies deeper than one path can say is reached all the same, and leaves no descriptor open."""
    folder = os.dup(work)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    before = len(list(Path("/dev/fd").iterdir()))
    deepest = open_beneath(work, "/".join(["d" * 250] * 20), os.O_DIRECTORY)
    assert os.path.sameopenfile(deepest, folder)
    assert len(list(Path("/dev/fd").iterdir())) == before + 1
    os.close(deepest)
    os.close(folder)


def test_as_it_is_without_an_owner(work: int) -> None:
    """None changes nothing."""
    with acting_as(None):
        write_file(work, "file", b"1")
    assert os.stat("file", dir_fd=work).st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform != "linux", reason="root may")
def test_ordinary_user_may_not() -> None:
    """Who may not act as another is told so; nothing has changed."""
    with pytest.raises(PermissionError, match="CAP_SETUID"), acting_as(os.geteuid() + 1):
        pass


def _file_uid() -> list[str]:
    """Return the file-system uid and gid of this thread, as the system shows them."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return [line.split()[4] for line in lines if line.startswith(("Uid:", "Gid:"))]


@needs_root
def test_acting_ends_with_the_block() -> None:
    """Only the thread changes, only within the block, errors included."""
    before = _file_uid()
    others: list[list[str]] = []
    with suppress(ZeroDivisionError), acting_as(UID):
        assert _file_uid() == [str(UID), str(UID)]
        thread = threading.Thread(target=lambda: others.append(_file_uid()))
        # a thread inherits it from the one that starts it, so that no thread may be started within
        thread.start()
        thread.join()
        raise ZeroDivisionError
    assert _file_uid() == before
    thread = threading.Thread(target=lambda: others.append(_file_uid()))
    thread.start()
    thread.join()
    assert others[1] == before


@needs_root
def test_writes_belong_to_the_owner(work: int, tmp_path: Path) -> None:
    """Files and folders are the sandbox's, to read, write and remove; the source is read with our rights."""
    os.fchown(work, UID, UID)
    source = tmp_path / "source"
    source.write_text("ours alone")
    source.chmod(0o600)
    write_file(work, "x/y/file", source, owner=UID)
    make_folder(work, "x/z", owner=UID)
    for path, mode in (("x", 0o755), ("x/y", 0o755), ("x/y/file", 0o644), ("x/z", 0o755)):
        found = os.stat(path, dir_fd=work)
        assert (found.st_uid, found.st_gid) == (UID, UID)
        assert found.st_mode & 0o700 == mode & 0o700
    assert read_file(work, "x/y/file", 100) == b"ours alone"


_MOUNT = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
uid = int(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)
me, group = os.getuid(), os.getgid()
if libc.unshare(0x10000000 | 0x00020000):
    sys.exit(77)
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"1000 {me} 1")
open("/proc/self/gid_map", "w").write(f"1000 {group} 1")
libc.mount(None, b"/", None, 16384 | 262144, None)
if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, b"size=1m,nr_inodes=20,mode=0700"):
    sys.exit(78)
os.mkdir("/tmp/work")
folder = os.open("/tmp/work", os.O_RDONLY | os.O_DIRECTORY)
socket.send_fds(socket.socket(fileno=0), [b"x"], [folder])
"""


@pytest.fixture(name="foreign")
def _foreign() -> Iterator[tuple[int, int | None]]:
    """A dead sandbox's folder: on a tmpfs of a user namespace that has ended. And who may write there."""
    if sys.platform != "linux":
        pytest.skip("Linux has user namespaces")
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-c", _MOUNT, str(UID)]
        done = subprocess.run(command, stdin=there, capture_output=True, text=True, check=False)
        if done.returncode in (77, 78):
            pytest.skip("this system lets nobody make a user namespace with a tmpfs in it")
        assert done.returncode == 0, done.stderr
        _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
    yield descriptors[0], UID if os.geteuid() == 0 else None
    os.close(descriptors[0])


def test_tmpfs_of_another_user_namespace(foreign: tuple[int, int | None]) -> None:
    """A sandbox's own file system is written, read and collected from outside, its quota holds."""
    work, owner = foreign
    write_file(work, "in/file", b"data", owner=owner)
    assert read_file(work, "in/file", 10) == b"data"
    with pytest.raises(OSError, match="disk_bytes") as caught:
        write_file(work, "in/large", b"x" * 2_000_000, owner=owner)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="max_files"):
        make_folder(work, "/".join(f"{number}" for number in range(30)), owner=owner)
    assert [file.path for file in collect(work, ["**"], limits=CollectLimits())] == ["in/file"]


@needs_root
def test_root_needs_the_owner_there(foreign: tuple[int, int | None]) -> None:
    """Why there is `acting_as`: in that file system root's own uid does not exist."""
    work, _ = foreign
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        os.mkdir("x", dir_fd=work)
    assert caught.value.errno == errno.EOVERFLOW


def test_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    """A full disk of this machine is an error that says so, and leaves no half of a file."""
    if not shutil.which("mount") or os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root of a Linux system can make a small disk")
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", full], check=True)
    try:
        work = os.open(full, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(OSError, match=r"'a/b' cannot be written.*sandbox\.scratch"):
                write_file(work, "a/b", b"x" * 200_000)
            assert list((full / "a").iterdir()) == []
        finally:
            os.close(work)
    finally:
        subprocess.run(["umount", full], check=True)
