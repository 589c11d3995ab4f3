"""Writes the kernel.json by which Jupyter finds the provisioner: `python -m sandbox_pool kernelspec`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir, jupyter_path

DEFAULT_NAME = "kernelfleet"


def kernels_folder(prefix: Path | None) -> Path:
    """Return where kernelspecs lie: below a prefix such as a virtual environment; for None, the user's."""
    return Path(jupyter_data_dir(), "kernels") if prefix is None else prefix / "share/jupyter/kernels"


def is_searched(kernels: Path) -> bool:
    """Whether Jupyter looks for kernelspecs there."""
    return str(kernels) in jupyter_path("kernels")


def write_kernelspec(kernels: Path, name: str) -> Path:
    """Write a kernel.json and return its path. One that is there with the same content stays.

    Args:
        kernels: the folder of all kernelspecs; made where it is not there.
        name: of this one.

    Raises:
        ValueError: the name is none that Jupyter finds.
        FileExistsError: there is another kernelspec of that name.
        OSError: it cannot be written.
    """
    if not re.fullmatch(r"[a-z0-9._-]+", name):
        raise ValueError(f"{name!r} cannot name a kernelspec: use a-z 0-9 . _ -")
    file = kernels / name / "kernel.json"
    text = json.dumps(kernelspec(name), indent=2) + "\n"
    if file.parent.exists() and not (file.is_file() and file.read_text() == text):
        raise FileExistsError(
            f"{file.parent} is there already: edit its kernel.json, choose another --name, or "
            f"`jupyter kernelspec remove {name}` first"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def kernelspec(name: str) -> dict[str, Any]:
    """Return what is written. There is no command in it: without the provisioner nothing may start."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    title = "Kernelfleet" if name == DEFAULT_NAME else name
    # whoever watches a notebook can end it; a limit of CPU time for its whole life would surprise them
    sandbox = {"python": sys.executable, "cpu_s": None}
    return {
        "argv": [],
        "display_name": f"Python {version} ({title})",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {
            "kernel_provisioner": {"provisioner_name": "kernelfleet", "config": {"sandbox": sandbox}}
        },
    }
