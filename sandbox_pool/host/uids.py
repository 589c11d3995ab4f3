"""Uids that nobody has: two for each sandbox, or one that is not root's."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox_pool.errors import UnsupportedHost

UIDS_PER_POOL = 65_536


@dataclass(frozen=True, slots=True)
class UidRange:
    """Uids of one pool. Each sandbox has two: one to run under, one that only ever kills."""

    base: int
    size: int

    def pair(self, number: int) -> tuple[int, int]:
        """Return the uids of the sandbox with this number; they come round after size / 2 sandboxes."""
        first = self.base + 2 * (number % (self.size // 2))
        return first, first + 1


def choose_uids(uid_map: Sequence[tuple[int, int]], choose: Callable[[int], int]) -> UidRange | None:
    """Choose uids as high as the user namespace's map allows, far from those of real users.

    Args:
        uid_map: first uid and count of each range that exists here.
        choose: `choose(n)` gives a number from 0 to n - 1.

    Returns:
        None where too few uids are mapped to give any away.
    """
    first, count = max(uid_map, key=lambda part: part[1], default=(0, 0))
    top = min(first + count, 2**31 - UIDS_PER_POOL)
    size = min(UIDS_PER_POOL, (top - first) // 4 // 2 * 2)
    if size < 64:
        return None
    lowest = max(first + (top - first) // 2, top - 1_000_000_000)
    return UidRange(lowest + choose((top - size - lowest) // size + 1) * size, size)


def sandbox_uids() -> UidRange | None:
    """Return uids for a pool started as root; None when not root: sandboxes then share our uid.

    Raises:
        UnsupportedHost: root, but of a user namespace with next to no uids in it.
    """
    if os.geteuid() != 0:
        return None
    uids = choose_uids(read_uid_map(), random.SystemRandom().randrange)
    if uids is None:
        raise UnsupportedHost(
            "started as root of a user namespace that has almost no other uids, so sandboxes cannot be given "
            "one: run as an ordinary user, or map a range of uids (podman --userns=auto:size=65536)"
        )
    return uids


def read_uid_map() -> list[tuple[int, int]]:
    """Return the first uid and the count of each range that exists here."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        return [(int(line.split()[0]), int(line.split()[2])) for line in lines]
    except OSError:
        return [(0, 2**31)]


def unprivileged_uid(wanted: int | None) -> int | None:
    """Return the uid of this machine that all sandboxes of a pool in the tier `namespace` map to.

    Args:
        wanted: the config's `uid`.

    Returns:
        None when not root: it is our own.

    Raises:
        UnsupportedHost: `wanted` cannot be had, or there is none to choose.
    """
    own = os.geteuid()
    if own != 0:
        if wanted not in (None, own):
            raise UnsupportedHost(
                f"only root may give sandboxes the uid {wanted} (sandbox.uid), and this is uid {own}: "
                "leave it out, or start as root"
            )
        return None
    if wanted is None:
        uids = sandbox_uids()
        assert uids is not None
        return uids.base
    uid_map = read_uid_map()
    if not any(first <= wanted < first + count for first, count in uid_map):
        known = ", ".join(f"{first}-{first + count - 1}" for first, count in uid_map)
        raise UnsupportedHost(f"uid {wanted} (sandbox.uid) does not exist in this user namespace: {known} do")
    return wanted
