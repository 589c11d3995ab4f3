"""Which folders this interpreter lives in, and which of them a sandbox needs."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - as boot.py has it

_PARTS = frozenset(
    {"bin", "etc", "include", "lib", "lib32", "lib64", "libexec", "sbin", "share", "ssl", "pyvenv.cfg"}
    | {"conda-meta", "plugins", "x86_64-conda-linux-gnu", "aarch64-conda-linux-gnu", "Python", "Resources"}
)
"""What a prefix consists of; anything else in it is not the interpreter's."""


def prefixes() -> list[str]:
    """Return the folders that this interpreter lives in, by all names that it uses, outermost first."""
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    real = {os.path.realpath(name) for name in names}
    step = sys.executable
    while step:
        # .venv/bin/python may point to /opt/current/bin/python, and /opt/current to a prefix
        prefix = os.path.dirname(os.path.dirname(step))  # noqa: PTH120
        if os.path.realpath(prefix) in real:
            names.add(prefix)
        target = os.readlink(step) if os.path.islink(step) else ""  # noqa: PTH114, PTH115
        step = os.path.normpath(os.path.join(os.path.dirname(step), target)) if target else ""  # noqa: PTH118, PTH120
    return sorted(names | real, key=lambda name: (len(name), name))


def parts(prefix: str) -> list[str]:
    """Return `prefix`, or its parts where something else lies in it too, such as a project's sources."""
    names = [entry.name for entry in os.scandir(prefix) if not (entry.name[0] == "." and entry.is_file())]
    if _PARTS.issuperset(names):
        return [prefix]
    return [f"{prefix}/{name}" for name in sorted(_PARTS.intersection(names))]


def folders() -> list[str]:
    """Return what a sandbox must be able to read for this interpreter to run, outermost first."""
    found: list[str] = []
    for prefix in prefixes():
        found += [part for part in parts(prefix) if not is_beneath(part, found)]
    return found


def package_folders(prefix: str) -> list[str]:
    """Return where `pip install --prefix` puts packages, as pip finds it (pip/_internal/locations)."""
    # Debian's own Python has another layout than most; before 3.10 there was nothing to ask
    ask = getattr(sysconfig, "get_preferred_scheme", None)
    preferred = ask("prefix") if ask is not None else "posix_prefix"
    scheme = "posix_prefix" if preferred == "osx_framework_library" else preferred
    bases = {"base": prefix, "platbase": prefix}
    return list(dict.fromkeys(sysconfig.get_path(name, scheme, bases) for name in ("purelib", "platlib")))


def extra_entries(settings: dict[str, Any]) -> list[str]:
    """Return what `extra_paths` adds to sys.path: the folders, and the wheels in each."""
    found: list[str] = []
    for folder in settings.get("extra_paths") or []:
        names = sorted(os.listdir(folder))  # noqa: PTH208
        found += [folder, *(f"{folder}/{name}" for name in names if name.endswith(".whl"))]
    return found


def is_beneath(path: str, tops: list[str]) -> bool:
    """Whether `path` is one of `tops` or lies below one."""
    return any(path == top or path.startswith(top.rstrip("/") + "/") for top in tops)


def unreadable(paths: list[str]) -> str | None:
    """Return the first of `paths` that this process cannot read, or None."""
    for path in paths:
        needed = os.R_OK | os.X_OK if Path(path).is_dir() else os.R_OK
        if not os.access(path, needed):
            return path
    return None
