"""What a pool, and each of its sandboxes, has on this machine: uids, folders, control groups.

Everything here blocks; call it in a thread.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sandbox_pool import settings
from sandbox_pool.config import DEFAULT_PROFILE, PoolConfig, Profile
from sandbox_pool.errors import SandboxStartError, UnsupportedHost
from sandbox_pool.host.capacity import raise_descriptor_limit
from sandbox_pool.host.cgroups import Group, GroupLimits, Groups, open_groups
from sandbox_pool.host.probe import capabilities, look
from sandbox_pool.host.scratch import make_scratch, remove_tree
from sandbox_pool.host.tiers import Tier, choose_tier
from sandbox_pool.host.uids import UidRange, sandbox_uids, unprivileged_uid
from sandbox_pool.settings import Front, Identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What a pool has found and made for all its sandboxes; `give_back` removes it."""

    tier: Tier
    scratch: Path
    scratch_lock: int
    uid: int | None
    """Who sandboxes run as in the tier `namespace`; None: the runner's own user."""

    uids: UidRange | None
    """Uids to give away in the other tiers; None unless started as root."""

    profiles: Mapping[str, Profile]
    groups: Groups | None
    """Control groups; None where they cannot be made."""

    capabilities: Mapping[str, Any]
    """What the probe has found, for a run's record."""

    def give_back(self) -> None:
        """Remove what was made."""
        for remove in (self.groups.close if self.groups else None, partial(remove_tree, self.scratch)):
            try:
                if remove is not None:
                    remove()
            except OSError as error:  # no reason to fail a run that is over
                logger.warning("something of the pool is left behind: %s", error)
        os.close(self.scratch_lock)


def take_host(config: PoolConfig, *, trusted_code: bool) -> Host:
    """Choose a tier and make what a pool shares. Leaves nothing behind when it fails.

    Args:
        config: the pool's.
        trusted_code: see SandboxPool.

    Raises:
        UnsupportedHost: this machine cannot hold such sandboxes; says what would help.
    """
    raise_descriptor_limit()
    profiles = {name: config.profile_named(name) for name in (DEFAULT_PROFILE, *config.profiles)}
    facts = look(config)
    tier, said = choose_tier(config, facts, trusted_code=trusted_code)
    for warning in said:
        logger.warning("sandboxes: %s", warning)
    is_namespace = tier == "namespace"
    uid = unprivileged_uid(config.uid) if is_namespace else None
    uids = None if is_namespace else sandbox_uids()
    scratch, lock = make_scratch(config.scratch, for_other_uids=uids is not None)
    try:
        groups = open_groups(facts.groups, _controllers(profiles)) if facts.groups.places else None
    except OSError as error:
        os.close(lock)
        remove_tree(scratch)
        raise UnsupportedHost(
            f"control groups that were there a moment ago cannot be made: {error}"
        ) from error
    return Host(tier, scratch, lock, uid, uids, profiles, groups, capabilities(config, facts, tier, said))


def _controllers(profiles: Mapping[str, Profile]) -> frozenset[str]:
    """Return what is bounded for any of the profiles."""
    return frozenset().union(*(group_limits(profile).controllers() for profile in profiles.values()))


class Belongings:
    """What one sandbox has: `make` makes it before the fork, `remove` removes it when nothing runs.

    Args:
        host: of the pool.
        number: of the sandbox; no two that exist have the same.
        profile: what it consists of.
        jupyter_key: for a kernel that Jupyter's own clients talk to: what signs their messages, empty for
            unsigned ones. None: we talk to it.
    """

    def __init__(self, host: Host, number: int, profile: Profile, *, jupyter_key: str | None = None) -> None:
        self._host = host
        self._number = number
        self._home = host.scratch / str(number)
        self._has_own_files = host.tier == "namespace"
        self._identity = Identity(*host.uids.pair(number)) if host.uids else None
        self.profile = profile
        self.group: Group | None = None
        self.front: Front = "private" if jupyter_key is None else "jupyter"
        has_sockets = profile.kernel == "ipykernel" or jupyter_key is not None
        self.sockets_at = self._home / "s" / "k" if has_sockets else None
        """What the paths of its sockets begin with; None for a kernel that has none."""

        self.key = jupyter_key if jupyter_key is not None else settings.new_key() if has_sockets else ""

    @property
    def owner(self) -> int | None:
        """The uid that its files belong to; None: ours."""
        if self._has_own_files:
            return self._host.uid
        return self._identity.uid if self._identity else None

    def make(self, workspace: Path | None) -> int | None:
        """Make its folders and its control group.

        Args:
            workspace: a folder that it is to see, if any.

        Returns:
            A descriptor of its working directory, unless it has a file system of its own.

        Raises:
            SandboxStartError: it could not read the workspace.
            OSError: the disk is full.
        """
        if workspace is not None:
            self._check_workspace(workspace)
        if self._host.groups is not None:
            self.group = self._host.groups.make(str(self._number), group_limits(self.profile))
        if self.sockets_at is not None:
            self.sockets_at.parent.mkdir(mode=0o700, parents=True)
        if self._has_own_files:
            return None
        self._home.mkdir(mode=0o700, exist_ok=True)
        for folder in (self._home / "work", self._home / "home", self._home / "tmp"):
            folder.mkdir(mode=0o700)
            self._give(folder)
        self._give(self._home)
        return os.open(self._home / "work", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _check_workspace(self, workspace: Path) -> None:
        try:
            mode = workspace.stat().st_mode
        except OSError as error:
            raise SandboxStartError(f"workspace {workspace} cannot be shown: {error.strerror}") from None
        if not stat.S_ISDIR(mode):
            raise SandboxStartError(f"workspace {workspace} is no folder")
        if self.owner is not None and mode & 0o005 != 0o005:
            raise SandboxStartError(
                f"workspace {workspace} cannot be read by the sandbox, which runs as uid {self.owner}: "
                "chmod -R o+rX it"
            )

    def _give(self, folder: Path) -> None:
        if self._identity is not None:
            os.chown(folder, self._identity.uid, self._identity.uid)

    def joins(self) -> list[int]:
        """Return what the kernel writes itself into; nothing without a control group."""
        return self.group.joins if self.group else []

    def close_joins(self) -> None:
        """Close our copies of these."""
        if self.group is not None:
            self.group.close_joins()

    def start_settings(self, config: PoolConfig, workspace: Path | None) -> Mapping[str, Any]:
        """Return what its init is told."""
        return settings.start_settings(
            config,
            identity=None if self._has_own_files else self._identity,
            work=None if self._has_own_files else self._home,
            workspace=workspace.name if workspace else None,
            front=self.front,
            key=self.key,
        )

    def remove(self) -> None:
        """Remove what was made. Idempotent. Raises OSError if something cannot be, after the rest is gone."""
        try:
            remove_tree(self._home)
        finally:
            if self.group is not None:
                self.group.remove()


def group_limits(profile: Profile) -> GroupLimits:
    """Return what a control group bounds for a profile."""
    return GroupLimits(profile.memory_bytes, profile.max_processes, profile.max_cores)
