"""A pool's folder for scratch files: made and locked, and those of pools that were killed removed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from sandbox_pool.config import MIB
from sandbox_pool.errors import UnsupportedHost

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""What fits in sun_path, the final zero excluded."""

_MIN_SCRATCH_BYTES = 16 * MIB
_OUR_NAMES = re.compile(r"(?:\d+|zygote-\w+)(?:\.log)?")
"""What a pool has in its scratch folder: nothing else in `kf-*` is ever removed."""
_SOCKET_NAME_BYTES = len("/123456/s/k-4")


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
