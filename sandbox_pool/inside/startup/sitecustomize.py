"""Runs when a cell starts another Python: lets it import what the kernel can.

PYTHONPATH itself would put those folders before the standard library. Another interpreter than the
kernel's gets nothing that pip built for the kernel's. Source: site.execsitecustomize in the library.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(__file__)  # noqa: PTH120 - pathlib would cost every command's start


def extend(path: list[str]) -> None:
    """Add the folders of the sandbox to `path`: installed packages before others, extra ones last."""
    installed, extra = (
        [entry for entry in os.environ.get(name, "").split(os.pathsep) if entry]
        for name in ("SANDBOX_PACKAGES", "SANDBOX_EXTRA_PATHS")
    )
    version = f"/python{sys.version_info[0]}.{sys.version_info[1]}/"
    names = [entry.rpartition("/")[2] for entry in path]
    places = [n for n, name in enumerate(names) if name in ("site-packages", "dist-packages")]
    place = places[0] if places else len(path)
    path[place:place] = [entry for entry in installed if version in entry]
    path += extra


def run_other() -> None:
    """Run the interpreter's own file of this name, if it has one."""
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if entry != _HERE])
    if spec is not None and spec.loader is not None:
        with open(spec.origin or "", "rb") as source:  # noqa: PTH123
            exec(compile(source.read(), spec.origin or "", "exec"), {"__name__": "sitecustomize"})


sys.path[:] = [entry for entry in sys.path if entry != _HERE]
extend(sys.path)
run_other()
