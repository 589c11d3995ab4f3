"""How sandboxes are made and bounded: the `sandbox:` section of a run's config."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sandbox_pool.errors import UnknownProfile

MIB = 1024 * 1024
DEFAULT_PROFILE = "default"
"""The name of the profile that the config's own keys make."""

MAX_UID = 2**32 - 2
"""The highest uid: the one above it means `none` to the system."""

_OURS = ("/proc", "/dev", "/sys", "/sandbox", "/workspace", "/tmp")
"""Folders of a sandbox that a mount would break."""


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Profile(BaseModel):
    """What one kind of sandbox consists of, and its limits. Strict: an unknown key is an error that names it.

    Each profile in use has a zygote of its own. Paths are relative to the current folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: Path = Path(sys.executable)
    """The interpreter that kernels run in; it needs IPython, and ipykernel for `kernel: ipykernel`."""

    kernel: Literal["lean", "ipykernel"] = "lean"
    """`lean` is our own around IPython's shell, ready in milliseconds; `ipykernel` is the reference."""

    preload: tuple[str, ...] | None = None
    """Modules that are imported once, before sandboxes are forked; one that cannot be imported is an error.
    None: numpy, pandas and matplotlib.pyplot as far as they are installed."""

    network: Literal["none", "host"] = "none"
    """`none`: a sandbox reaches nothing but itself; `host`: what this machine reaches."""

    mounts: dict[str, Path] = {}
    """Folders and files of this machine that the code sees, read-only: path inside -> path here."""

    extra_paths: tuple[Path, ...] = ()
    """Folders that end sys.path, read-only; wheels in them can be imported, and installed by pip."""

    environment: dict[str, str] = {}
    """Variables that kernels see beside the few that the pool sets; of the runner's own they see none."""

    memory_bytes: PositiveInt | None = 4096 * MIB
    """Address space of each process (RLIMIT_AS), and memory of the whole sandbox, its files included, where
    cgroups can be written; None: unlimited."""

    cpu_s: PositiveInt | None = 600
    """CPU time of each process over its whole life (RLIMIT_CPU); None: unlimited."""

    max_cores: PositiveFloat | None = None
    """Cores that a sandbox may keep busy at a time, 0.5 for half of one; needs a cgroup. None: all."""

    disk_bytes: PositiveInt = 512 * MIB
    """Size of all files that the code writes; enforced in the tier `namespace`, where they lie in memory."""

    max_files: PositiveInt = 20_000
    """Number of files and folders that the code makes; enforced in the tier `namespace`."""

    max_file_bytes: PositiveInt = 1024 * MIB
    """Size of any file that the code writes (RLIMIT_FSIZE)."""

    max_processes: PositiveInt = 256
    """Processes and threads of one sandbox; not enforced where it has neither a uid, a user namespace nor a
    cgroup of its own."""

    max_open_files: PositiveInt = 1024
    """Descriptors of each process (RLIMIT_NOFILE)."""

    @field_validator("python")
    @classmethod
    def _found_python(cls, python: Path) -> Path:
        """Return where it is; symbolic links stay, since a virtual environment is known by its own."""
        if python.is_absolute():
            return python
        is_name = python.parent == Path() and not python.is_file()
        return Path(shutil.which(python.name) or python) if is_name else python.absolute()

    @field_validator("extra_paths")
    @classmethod
    def _absolute_paths(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.absolute() for path in paths)

    @field_validator("mounts")
    @classmethod
    def _sound_mounts(cls, mounts: dict[str, Path]) -> dict[str, Path]:
        for target in mounts:
            path = PurePosixPath(target)
            if not path.is_absolute() or ".." in path.parts or "\0" in target or len(path.parts) < 2:
                raise ValueError(f"{target!r} is no place to mount at: give an absolute path without '..'")
            if any(path.is_relative_to(ours) for ours in _OURS):
                raise ValueError(f"{target!r} lies where the sandbox has its own: not in {', '.join(_OURS)}")
        return {str(PurePosixPath(target)): source.absolute() for target, source in mounts.items()}

    @field_validator("environment")
    @classmethod
    def _sound_environment(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r} cannot be set: a name without '=', no NUL in it or in its value")
        return environment


class PoolConfig(Profile):
    """Limits and habits of a SandboxPool. Its keys that a Profile has are the profile `default`."""

    profiles: dict[str, dict[str, Any]] = {}
    """Other profiles by name: the keys in which each differs from `default`, any of Profile's. A key replaces
    the whole value: `environment` for one is not merged."""

    profile: str = DEFAULT_PROFILE
    """The profile of samples that name none."""

    tier: Literal["auto", "namespace", "landlock", "process"] = "auto"
    """How a sandbox is held. `namespace`: sees and reaches nothing of this machine; `landlock`: may not open
    what is not its own; `process`: resource limits only, no promise against attackers. `auto`: the first of
    `namespace` and `landlock` that this machine offers."""

    allow_unsafe: bool = False
    """Whether the tier `process` may be used, for code that you trust with all that this user can reach."""

    uid: int | None = None
    """Started as root: the unprivileged uid that sandboxes run under in the tier `namespace`. None: one that
    nobody has."""

    scratch: Path | None = None
    """Folder for logs, sockets and, below the tier `namespace`, working directories; None: the system's
    folder for temporary files."""

    max_sandboxes: PositiveInt = Field(default_factory=lambda: max(8, 4 * n_cores()))
    """Sandboxes that exist at any time, those being started and closed included."""

    min_idle: int = Field(default=0, ge=0)
    """Sandboxes of the profile named by `profile` that are kept ready while none is asked for."""

    max_idle: int = Field(default=32, ge=0)
    """Sandboxes of a kind that are kept ready at most, however many are asked for."""

    max_idle_s: PositiveFloat = 60.0
    """How long a ready sandbox is kept that the demand no longer calls for."""

    max_starting: PositiveInt = Field(default_factory=lambda: max(2, n_cores()))
    """Starts at the same time: more only make each other late."""

    recycle_after: PositiveInt = 2000
    """Sandboxes that a zygote makes before a fresh one takes its place."""

    acquire_timeout_s: PositiveFloat = 7200.0
    """How long acquire() waits for a free sandbox before it raises PoolTimeout: longer than any lease lasts,
    since whoever waits behind others has done nothing wrong."""

    start_timeout_s: PositiveFloat = 60.0
    """How long a kernel, or a zygote with its imports, may take to become ready."""

    zygote_timeout_s: PositiveFloat = 10.0
    """How long a ready zygote may take over one fork before it counts as stuck and is replaced."""

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

    max_read_bytes: PositiveInt = 64 * MIB
    """Size of a file up to which read() returns it."""

    max_collect_files: PositiveInt = 1000
    """Files that collect() takes."""

    max_collect_bytes: PositiveInt = 256 * MIB
    """Bytes that collect() takes in all."""

    max_collect_depth: PositiveInt = 16
    """Folders below the working directory that collect() looks into."""

    max_collect_s: PositiveFloat = 30.0
    """How long collect() looks and copies; what it has not reached by then is reported as not taken. Bringing
    the copies to disk comes on top."""

    @field_validator("uid")
    @classmethod
    def _ordinary_uid(cls, uid: int | None) -> int | None:
        if uid is not None and not 0 < uid <= MAX_UID:
            raise ValueError(f"not a uid for sandboxes: give one from 1 to {MAX_UID}; 0 is root's")
        return uid

    @field_validator("profiles")
    @classmethod
    def _named_profiles(cls, profiles: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in profiles:
            if name == DEFAULT_PROFILE or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(
                    f"{name!r} cannot name a profile: use A-Z a-z 0-9 . _ - and not {DEFAULT_PROFILE!r}, "
                    "which is made of the config's own keys"
                )
        return profiles

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, name: str, info: ValidationInfo) -> str:
        if "profiles" in info.data:  # else it has an error of its own
            _check_known(name, info.data["profiles"])
        return name

    @model_validator(mode="after")
    def _sound_profiles(self) -> PoolConfig:
        """Read all profiles now, so that a mistake in one is found before any work is done."""
        merged = {name: self._merged(overrides) for name, overrides in self.profiles.items()}
        _PROFILES.validate_python({"profiles": merged})
        return self

    def profile_named(self, name: str | None) -> Profile:
        """Return a profile, the one that `profile` names for None.

        Raises:
            UnknownProfile: there is none of that name; the message lists those that there are.
        """
        wanted = self.profile if name is None else name
        _check_known(wanted, self.profiles)
        return Profile.model_validate(self._merged(self.profiles.get(wanted, {})))

    def _merged(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {key: getattr(self, key) for key in Profile.model_fields} | dict(overrides)


def _check_known(name: str, profiles: Collection[str]) -> None:
    if name != DEFAULT_PROFILE and name not in profiles:
        known = ", ".join((DEFAULT_PROFILE, *profiles))
        raise UnknownProfile(f"no sandbox profile {name!r}: known are {known} (sandbox.profiles)")


_PROFILES = TypeAdapter(dict[Literal["profiles"], dict[str, Profile]])
"""In the shape of the config, so that an error is placed at `profiles.NAME.KEY`."""
