"""Virtual environments of the systems that are measured beside ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path


def installed(requirements: Path, folder: Path | None = None) -> Path:
    """Install a file of requirements unless that is done already; return its interpreter. Blocks for a minute.

    `folder` None: one in the user's cache, another for other versions of them or of Python.
    """
    folder = (folder or _default_folder(requirements)).absolute()
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.exists():
        print(f"installing {requirements.stem} into {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--requirement", str(requirements)], check=True, stdout=sys.stderr)
        done.touch()
    return python


def _default_folder(requirements: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    what = requirements.read_bytes() + sys.version.encode()
    return cache / "kernelfleet" / f"{requirements.stem}-{hashlib.sha256(what).hexdigest()[:12]}"
