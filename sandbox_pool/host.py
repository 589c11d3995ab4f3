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

from sandbox_pool.errors import UnsupportedHost

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""What fits in sun_path, the final zero excluded."""

UIDS_PER_POOL = 65_536
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
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        uid_map = [(int(line.split()[0]), int(line.split()[2])) for line in lines]
    except OSError:
        uid_map = [(0, 2**31)]
    uids = choose_uids(uid_map, random.SystemRandom().randrange)
    if uids is None:
        raise UnsupportedHost(
            "started as root of a user namespace that has almost no other uids, so sandboxes cannot be given "
            "one: run as an ordinary user, or map a range of uids (podman --userns=auto:size=65536)"
        )
    return uids


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
        UnsupportedHost: no folder has a path short enough for sockets and open enough for other uids.
    """
    tried = []
    for parent in [wanted] if wanted is not None else [Path(tempfile.gettempdir()), Path("/tmp")]:
        resolved = parent.resolve()
        room = MAX_SOCKET_PATH_BYTES - _SOCKET_NAME_BYTES - len("/kf-12345678")
        if len(os.fsencode(resolved)) > room:
            tried.append(f"{resolved} is longer than {room} bytes, the most that socket paths leave")
        elif not resolved.is_dir():
            tried.append(f"{resolved} is no folder")
        elif for_other_uids and not is_open_to_all(resolved):
            tried.append(
                f"{resolved} may not be entered by the sandboxes' uids (chmod o+x it and what is above)"
            )
        else:
            remove_abandoned(resolved)
            return _locked_folder(resolved, 0o711 if for_other_uids else 0o700)
    raise UnsupportedHost(f"no folder for sandboxes: {'; '.join(tried)}; set sandbox.scratch to another")


def _locked_folder(parent: Path, mode: int) -> tuple[Path, int]:
    hidden = Path(tempfile.mkdtemp(prefix=".kf-", dir=parent))
    hidden.chmod(mode)
    lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
                if is_ours and all(re.fullmatch(r"\d+(\.log)?", part.name) for part in folder.iterdir()):
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
