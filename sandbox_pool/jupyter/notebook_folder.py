"""Whether a notebook's folder may be shown to the kernel that runs the notebook, and can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

_READ_AND_ENTER = 0o5
_ENTER = 0o1


def why_not_shown(
    folder: Path, *, uid: int | None, is_mounted: bool, own_places: Sequence[Path] = ()
) -> str | None:
    """Return why a folder is not shown to a sandbox, and what would help; None if it is.

    Read-only is not harmless: through a socket in the folder the code could talk to whoever listens there,
    and what it reads it can print. So no folder is shown that holds the user's home.

    Args:
        folder: an existing one, resolved.
        uid: who the sandbox runs as; None: this process's user.
        is_mounted: whether the sandbox sees it at another path, whatever the folders above allow.
        own_places: folders that no sandbox may see, besides the user's home and Jupyter's keys.
    """
    for place in (*_private_places(), *own_places):
        if place.is_relative_to(folder):
            return f"it holds {place}, whose keys and sockets are not for the code: use a folder of its own"
    # the zygote mounts the folder above, and each sandbox of it what it is to see
    above = list(folder.parents)[: 1 if is_mounted else None]
    needs = [(folder, _READ_AND_ENTER), *((part, _ENTER) for part in above)]
    for part, needed in needs:
        if not _allows(part, uid, needed):
            whose = "this user" if uid is None else f"the sandboxes' uid {uid}"
            return (
                f"{whose} may not enter {part}: `chmod o+{'rx' if needed == _READ_AND_ENTER else 'x'} {part}`"
            )
    return None


def _private_places() -> list[Path]:
    places = []
    with suppress(RuntimeError):  # this user has no home
        places.append(Path.home())
    return [place.resolve() for place in (*places, Path(jupyter_runtime_dir()))]


def _allows(folder: Path, uid: int | None, needed: int) -> bool:
    """Whether the mode of a folder lets a uid, that is in the group of the same number alone, use it."""
    if uid is None:
        return os.access(folder, os.X_OK | (os.R_OK if needed & 4 else 0))
    found = folder.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == uid else 0
    return (found.st_mode >> shift) & needed == needed
