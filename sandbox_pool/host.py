"""What the pool takes from this machine: descriptors, uids nobody has, a folder for scratch files."""

from __future__ import annotations

import fcntl
import os
import random
import re
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox_pool.config import MIB
from sandbox_pool.errors import UnsupportedHost

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""What fits in sun_path, the final zero excluded."""

UIDS_PER_POOL = 65_536
_MIN_SCRATCH_BYTES = 16 * MIB
_OUR_NAMES = re.compile(r"(?:\d+|zygote-\w+)(?:\.log)?")
"""What a pool has in its scratch folder: nothing else in `kf-*` is ever removed."""
_SOCKET_NAME_BYTES = len("/123456/s/k-4")


@dataclass(frozen=True, slots=True)
class UidRange:
    """Uids of one pool. Each sandbox has two: one to run under, one that only ever kills."""

    base: int
    size: int

    def pair(self, number: int) -> tuple[int, int]:
        """Return the uids of the sandbox with this number; they come round after size / 2 sandboxes."""
        first = self.base + 2 * (number % (self.size // 2))
        return first, first + 1


def choose_uids(uid_map: Sequence[tuple[int, int]], choose: Callable[[int], int]) -> UidRange | None:
    """Choose uids as high as the user namespace's map allows, far from those of real users.

    Args:
        uid_map: first uid and count of each range that exists here.
        choose: `choose(n)` gives a number from 0 to n - 1.

    Returns:
        None where too few uids are mapped to give any away.
    """
    first, count = max(uid_map, key=lambda part: part[1], default=(0, 0))
    top = min(first + count, 2**31 - UIDS_PER_POOL)
    size = min(UIDS_PER_POOL, (top - first) // 4 // 2 * 2)
    if size < 64:
        return None
    lowest = max(first + (top - first) // 2, top - 1_000_000_000)
    return UidRange(lowest + choose((top - size - lowest) // size + 1) * size, size)


def sandbox_uids() -> UidRange | None:
    """Return uids for a pool started as root; None when not root: sandboxes then share our uid.

    Raises:
        UnsupportedHost: root, but of a user namespace with next to no uids in it.
    """
    if os.geteuid() != 0:
        return None
    uids = choose_uids(read_uid_map(), random.SystemRandom().randrange)
    if uids is None:
        raise UnsupportedHost(
            "started as root of a user namespace that has almost no other uids, so sandboxes cannot be given "
            "one: run as an ordinary user, or map a range of uids (podman --userns=auto:size=65536)"
        )
    return uids


def read_uid_map() -> list[tuple[int, int]]:
    """Return the first uid and the count of each range that exists here."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        return [(int(line.split()[0]), int(line.split()[2])) for line in lines]
    except OSError:
        return [(0, 2**31)]


def unprivileged_uid(wanted: int | None) -> int | None:
    """Return the uid of this machine that all sandboxes of a pool in the tier `namespace` map to.

    Args:
        wanted: the config's `uid`.

    Returns:
        None when not root: it is our own.

    Raises:
        UnsupportedHost: `wanted` cannot be had, or there is none to choose.
    """
    own = os.geteuid()
    if own != 0:
        if wanted not in (None, own):
            raise UnsupportedHost(
                f"only root may give sandboxes the uid {wanted} (sandbox.uid), and this is uid {own}: "
                "leave it out, or start as root"
            )
        return None
    if wanted is None:
        uids = sandbox_uids()
        assert uids is not None
        return uids.base
    uid_map = read_uid_map()
    if not any(first <= wanted < first + count for first, count in uid_map):
        known = ", ".join(f"{first}-{first + count - 1}" for first, count in uid_map)
        raise UnsupportedHost(f"uid {wanted} (sandbox.uid) does not exist in this user namespace: {known} do")
    return wanted


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open descriptors as far as it goes, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 65_536
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS reports more than it grants
            return soft
    return max(soft, hard)


def is_open_to_all(folder: Path) -> bool:
    """Whether every user may pass through `folder` and all folders above it."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


def make_scratch(wanted: Path | None, *, for_other_uids: bool) -> tuple[Path, int]:
    """Make a fresh folder for the sandboxes of one pool, after removing those of pools that were killed.

    Returns:
        The folder, which the caller removes, and a descriptor that the caller keeps open until then: it
        holds the lock by which other pools know that the folder is in use.

    Raises:
        UnsupportedHost: no folder can be written, has room, and a path that is short enough for sockets and
            open enough for other uids.
    """
    tried = []
    for parent in [wanted] if wanted is not None else [Path(tempfile.gettempdir()), Path("/tmp")]:
        resolved = parent.resolve()
        problem = _problem(resolved, for_other_uids=for_other_uids)
        if problem is None:
            try:
                remove_abandoned(resolved)
                return _locked_folder(resolved, 0o711 if for_other_uids else 0o700)
            except OSError as error:
                problem = f"{resolved} takes no folder: {error.strerror}"
        tried.append(problem)
    raise UnsupportedHost(
        f"no folder for sandboxes: {'; '.join(dict.fromkeys(tried))}; set sandbox.scratch to another"
    )


def _problem(folder: Path, *, for_other_uids: bool) -> str | None:
    """Return what is wrong with a folder as a place for scratch files."""
    room = MAX_SOCKET_PATH_BYTES - _SOCKET_NAME_BYTES - len("/kf-12345678")
    if len(os.fsencode(folder)) > room:
        return f"{folder} is longer than {room} bytes, the most that socket paths leave"
    if not folder.is_dir():
        return f"{folder} is no folder"
    if for_other_uids and not is_open_to_all(folder):
        return f"{folder} may not be entered by the sandboxes' uids (chmod o+x it and what is above)"
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _MIN_SCRATCH_BYTES:
        return f"{folder} has {free_bytes} bytes free, {_MIN_SCRATCH_BYTES} are the least that is of use"
    return None


def _locked_folder(parent: Path, mode: int) -> tuple[Path, int]:
    hidden = Path(tempfile.mkdtemp(prefix=".kf-", dir=parent))
    try:
        hidden.chmod(mode)
        lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except BaseException:
        hidden.rmdir()
        raise
    fcntl.flock(lock, fcntl.LOCK_EX)
    # only now by the name that remove_abandoned looks for
    return hidden.rename(parent / hidden.name[1:]), lock


def remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders in `parent` whose pool was killed before it could.

    Guardians remove theirs; left is what they did not know of yet, or the pool was removing itself.
    """
    for folder in parent.glob("kf-*"):
        with suppress(OSError):  # in use, somebody else's, or gone meanwhile
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.fstat(lock).st_uid == os.geteuid() and re.fullmatch(r"kf-\w{8}", folder.name)
                if is_ours and all(_OUR_NAMES.fullmatch(part.name) for part in folder.iterdir()):
                    remove_tree(folder)
            finally:
                os.close(lock)


def remove_tree(top: Path) -> None:
    """Remove a folder whose content cannot be trusted, however deep; does nothing if it is not there.

    Nothing may write below it any more. Folders are moved up one by one before they are emptied, so
    that neither recursion, nor path length, nor open descriptors grow with the depth.
    """
    if not top.is_dir() or top.is_symlink():
        top.unlink(missing_ok=True)
        return
    n_moved = 0
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        os.chmod(folder, 0o700)  # noqa: PTH101 - names may be undecodable; str paths carry them
        with os.scandir(folder) as entries:
            names = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_folder in names:
            if not is_folder:
                os.unlink(path)  # noqa: PTH108
            elif folder == str(top):
                waiting.append(path)
            else:
                n_moved += 1
                moved = f"{top}/.kf-moved-{n_moved}"
                os.chmod(path, 0o700)  # noqa: PTH101 - moving a folder needs the right to write it
                os.rename(path, moved)  # noqa: PTH104
                waiting.append(moved)
        if folder != str(top):
            os.rmdir(folder)  # noqa: PTH106
    shutil.rmtree(top)
