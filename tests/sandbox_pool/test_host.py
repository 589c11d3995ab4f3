from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.errors import UnsupportedHost
from sandbox_pool.host import choose_uids, make_scratch, raise_descriptor_limit, remove_tree


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
