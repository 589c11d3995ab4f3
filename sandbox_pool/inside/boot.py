"""Where the other side of the wall starts: run by path, under the interpreter of a profile.

`python -s boot.py` becomes a keeper and its zygote; `python -s boot.py probe` prints what this machine
can do. The rest of the project is not importable here: the packages that the modules of this folder
are addressed by are empty but for it.
"""

from __future__ import annotations

import os
import sys
import types


def make_packages(folder: str) -> None:
    """Make `sandbox_pool.inside` importable from `folder`, and nothing else of ours."""
    outer, inner = types.ModuleType("sandbox_pool"), types.ModuleType("sandbox_pool.inside")
    outer.__path__, inner.__path__ = [], [folder]
    outer.inside = inner  # type: ignore[attr-defined]
    sys.modules.update({outer.__name__: outer, inner.__name__: inner})


def main() -> None:
    """Do what the command line says; the keeper never returns."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs 5 ms
    # a script's own folder comes first, where init, probe or kernel would hide what users call so
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != folder]  # noqa: PTH100
    make_packages(folder)
    if sys.argv[1:] == ["probe"]:
        from sandbox_pool.inside import probe

        probe.main()
    else:
        from sandbox_pool.inside import keeper

        keeper.main()


if __name__ == "__main__":
    main()
