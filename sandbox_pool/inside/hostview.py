"""The host as the zygotes of the landlock and process tiers see it when they were started as root.

Their sandboxes have ordinary uids, which may not enter root's home, for one; the interpreter may live there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sandbox_pool.inside import interpreter, syscalls
from sandbox_pool.inside.syscalls import Unsupported


def first_blocked(path: str) -> str | None:
    """Return the outermost folder above `path` that other users may not enter, or None."""
    pieces = path.strip("/").split("/")
    for n in range(len(pieces)):
        folder = "/" + "/".join(pieces[:n])
        if not Path(folder).stat().st_mode & 0o001:
            return folder
    return None


def open_the_way(settings: dict[str, Any]) -> None:
    """Make what sandboxes need reachable for every uid, in a mount namespace of this process alone.

    A blocked ancestor is covered by an empty tmpfs in which only the wanted folders exist again, so that
    nothing else below it becomes readable. Raises Unsupported where root may not mount.
    """
    wanted = [*interpreter.folders(), interpreter.OWN_FOLDER, *(settings.get("extra_paths") or [])]
    wanted += [source for source, _ in settings.get("mounts") or []]
    for name in ("workspaces", "scratch"):
        wanted += [settings[name]] if settings.get(name) else []
    blocked = {path: cover for path in wanted if (cover := first_blocked(path)) is not None}
    if not blocked:
        return
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        _cover(blocked, settings.get("scratch"))
    except OSError as error:
        path, cover = next(iter(blocked.items()))
        raise Unsupported(
            f"the folder {path} lies below {cover}, which only its owner may enter, and this process may not "
            f"make a mount namespace ({error}): install Python and the virtual environment elsewhere (/opt, "
            f"for one), `chmod o+x {cover}`, or do not run as root"
        ) from error


def _cover(blocked: dict[str, str], writable: str | None) -> None:
    # opened only now: a bind from a descriptor of the old namespace is refused
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in blocked}
    for cover in sorted(set(blocked.values()), key=len):
        syscalls.mount("tmpfs", cover, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=1m")
    for path, descriptor in sorted(opened.items(), key=lambda item: len(item[0])):
        target = Path(path)
        if not target.exists():
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if Path(f"/proc/self/fd/{descriptor}").is_dir():
                target.mkdir(mode=0o755)
            else:
                target.touch()
            syscalls.mount(f"/proc/self/fd/{descriptor}", path, None, syscalls.MS_BIND | syscalls.MS_REC)
            read_only = 0 if path == writable else syscalls.MS_RDONLY
            flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_NOSUID | read_only
            syscalls.mount("none", path, None, flags)
        os.close(descriptor)
