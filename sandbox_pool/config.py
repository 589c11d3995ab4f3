"""How sandboxes are made and bounded: the `sandbox:` section of a run's config."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

MIB = 1024 * 1024


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class PoolConfig(BaseModel):
    """Limits and habits of a SandboxPool. Strict: an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tier: Literal["process"] = "process"
    """How a sandbox is held: a process of its own, with resource limits. No promise against attackers."""

    python: Path = Path(sys.executable)
    """The interpreter that kernels run in; it needs ipykernel."""

    environment: dict[str, str] = {}
    """Variables that kernels see beside the few that the pool sets; of the runner's own they see none."""

    scratch: Path | None = None
    """Folder for working directories; None: the system's folder for temporary files."""

    max_sandboxes: PositiveInt = Field(default_factory=lambda: max(8, 4 * n_cores()))
    """Sandboxes that exist at any time, those being started and closed included."""

    min_idle: int = Field(default=0, ge=0)
    """Sandboxes that are kept ready while none is asked for."""

    max_starting: PositiveInt = Field(default_factory=lambda: max(2, n_cores()))
    """Starts at the same time: more only make each other late."""

    acquire_timeout_s: PositiveFloat = 7200.0
    """How long acquire() waits for a free sandbox before it raises PoolTimeout: longer than any lease lasts,
    since whoever waits behind others has done nothing wrong."""

    start_timeout_s: PositiveFloat = 60.0
    """How long a kernel may take to become ready."""

    interrupt_grace_s: NonNegativeFloat = 2.0
    """What a cell gets to end by itself after an interrupt, before it is killed."""

    max_output_bytes: PositiveInt = 16 * MIB
    """Output of one cell at which it is interrupted: messages as they arrive, kept or not."""

    max_text_bytes: PositiveInt = 64 * 1024
    """Text kept of each stream, result or display of a cell: so much of its start, so much of its end."""

    max_images: int = Field(default=20, ge=0)
    """Pictures kept of one cell."""

    max_image_bytes: PositiveInt = 5 * MIB
    """Size up to which a picture is kept."""

    memory_bytes: PositiveInt | None = 4096 * MIB
    """Address space of each process (RLIMIT_AS); None: unlimited."""

    cpu_s: PositiveInt | None = 600
    """CPU time of each process over its whole life (RLIMIT_CPU); None: unlimited."""

    max_file_bytes: PositiveInt = 1024 * MIB
    """Size of any file that the code writes (RLIMIT_FSIZE)."""

    max_processes: PositiveInt = 256
    """Processes and threads of one sandbox; enforced only where it has a uid of its own (as root)."""

    max_open_files: PositiveInt = 1024
    """Descriptors of each process (RLIMIT_NOFILE)."""

    max_read_bytes: PositiveInt = 64 * MIB
    """Size of a file up to which read() returns it."""

    max_collect_files: PositiveInt = 1000
    """Files that collect() takes."""

    max_collect_bytes: PositiveInt = 256 * MIB
    """Bytes that collect() takes in all."""

    max_collect_depth: PositiveInt = 16
    """Folders below the working directory that collect() looks into."""
