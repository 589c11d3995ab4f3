"""Whether two processes run the same code of ours. Needs nothing of ours itself. Blocks."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGES = ("runner", "sandbox_pool", "bench_data", "scoring")


def packages_root() -> Path:
    """Return the folder from which this process imports our packages."""
    return Path(__file__).parent.parent.parent


def packages_digest(root: Path) -> str:
    """Return the SHA-256 of all our Python files below a folder."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
