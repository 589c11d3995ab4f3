from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.errors import UnsupportedHost
from sandbox_pool.host import uids
from sandbox_pool.host.capacity import raise_descriptor_limit
from sandbox_pool.host.scratch import make_scratch, remove_tree
from sandbox_pool.host.uids import choose_uids, unprivileged_uid


@given(st.integers(0, 10**6), st.integers(0, 2**32 - 1), st.randoms())
def test_uids_are_within_the_map(first: int, count: int, random: object) -> None:
    """Chosen uids exist in the user namespace, are never root's, and a pair is two different ones."""
    uids = choose_uids([(first, count)], random.randrange)  # type: ignore[attr-defined]
    if uids is None:
        assert count < 1024
        return
    for number in (0, 1, uids.size // 2 - 1, 10**9):
        uid, killer = uids.pair(number)
        assert 0 < uid < killer < first + count
        assert uid >= first
    assert uids.pair(0) != uids.pair(1)


def test_uids_are_high_on_a_plain_host() -> None:
    """Without a user namespace uids are far above those of real users."""
    uids = choose_uids([(0, 2**32 - 1)], lambda n: 0)
    assert uids is not None
    assert uids.base > 1_000_000


def test_no_uids_to_give() -> None:
    """A namespace with one uid has none to give."""
    assert choose_uids([(0, 1)], lambda n: 0) is None
    assert choose_uids([], lambda n: 0) is None


def test_scratch_is_private_enough(tmp_path: Path) -> None:
    """The folder is closed to others, or passable but not listable where sandboxes have other uids."""
    for for_other_uids, mode in ((False, 0o700), (True, 0o711)):
        scratch, lock = make_scratch(None, for_other_uids=for_other_uids)
        assert scratch.stat().st_mode & 0o777 == mode
        scratch.rmdir()
        os.close(lock)


def test_abandoned_scratch_is_removed(tmp_path: Path) -> None:
    """A pool removes what killed pools left beside it, nothing that is in use, and nothing that is no pool's."""
    used, used_lock = make_scratch(tmp_path, for_other_uids=False)
    abandoned, lock = make_scratch(tmp_path, for_other_uids=False)
    for folder in (used, abandoned):
        (folder / "0" / "work").mkdir(parents=True)
        (folder / "0.log").touch()
    for name in ("kf-users_own", "kf-userdata"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").touch()
    os.close(lock)  # as the death of its process does
    before = set(tmp_path.iterdir())
    fresh, fresh_lock = make_scratch(tmp_path, for_other_uids=False)
    assert set(tmp_path.iterdir()) == before - {abandoned} | {fresh}
    assert (used / "0" / "work").is_dir()
    os.close(used_lock)
    os.close(fresh_lock)


@pytest.mark.parametrize("name", ["missing", "closed"])
def test_unusable_scratch_is_named(tmp_path: Path, name: str) -> None:
    """A folder that is missing, or closed to the sandboxes' uids, is an error that names it."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    with pytest.raises(UnsupportedHost, match=name):
        make_scratch(tmp_path / name, for_other_uids=True)


def test_remove_tree_takes_anything(tmp_path: Path) -> None:
    """Depth, odd names, links, fifos and folders without permissions do not stop it; links are not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    os.mkfifo(top / "fifo")
    Path(os.fsdecode(os.fsencode(top) + b"/\xff")).mkdir()
    (top / "shut").mkdir()
    (top / "shut" / "inner").mkdir()
    (top / "shut").chmod(0)
    folder = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d" * 50, dir_fd=folder)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    remove_tree(top)
    remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()


def test_descriptor_limit_is_raised() -> None:
    """The limit is as high as it can be, and asking again changes nothing."""
    assert raise_descriptor_limit() == raise_descriptor_limit() >= 256


# -- uids


def test_unprivileged_uid_is_never_roots() -> None:
    """Root gives sandboxes a uid that is nobody's, or the one that it is told; others have their own."""
    if os.geteuid() != 0:
        assert unprivileged_uid(None) is unprivileged_uid(os.geteuid()) is None
        with pytest.raises(UnsupportedHost, match=r"sandbox\.uid"):
            unprivileged_uid(os.geteuid() + 1)
    else:
        assert (unprivileged_uid(None) or 0) > 1000
        assert unprivileged_uid(54_321) == 54_321


@pytest.mark.skipif(os.geteuid() != 0, reason="root's choice")
def test_uid_outside_of_the_map_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that this user namespace does not have is an error that says which it has."""
    monkeypatch.setattr(uids, "read_uid_map", lambda: [(0, 1000), (5000, 10)])
    assert unprivileged_uid(5009) == 5009
    with pytest.raises(UnsupportedHost, match=r"uid 5010.*0-999, 5000-5009 do"):
        unprivileged_uid(5010)


# -- scratch


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can make a small disk")
@pytest.mark.parametrize(
    ("options", "says"), [("size=1m", "bytes free"), ("size=64m,nr_inodes=1", "takes no")]
)
def test_full_disk_is_no_scratch(tmp_path: Path, options: str, says: str) -> None:
    """A disk without bytes or without inodes left is refused when the pool opens, not in the first cell."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", tmp_path], check=True)
    try:
        with pytest.raises(UnsupportedHost, match=f"{says}.*sandbox\\.scratch"):
            make_scratch(tmp_path, for_other_uids=False)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_logs_of_zygotes_are_ours(tmp_path: Path) -> None:
    """What a killed pool of zygotes left is removed: logs, folders of zygotes and of sandboxes."""
    abandoned, lock = make_scratch(tmp_path, for_other_uids=False)
    (abandoned / "zygote-0.log").touch()
    for name in ("17", "zygote-x_y8"):
        (abandoned / name).mkdir()
    os.close(lock)
    fresh, lock = make_scratch(tmp_path, for_other_uids=False)
    assert list(tmp_path.iterdir()) == [fresh]
    os.close(lock)
