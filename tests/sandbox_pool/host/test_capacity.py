from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.config import MIB
from sandbox_pool.host import capacity
from sandbox_pool.host.capacity import NEEDS, RESERVED, Resources, bound_of_sandboxes, read_resources


@given(st.integers(0, 2**44), st.integers(0, 2**20), st.integers(0, 2**22), st.sampled_from(sorted(NEEDS)))
def test_bound_holds(free: int, descriptors: int, tasks: int, kernel: str) -> None:
    """What fits leaves the reserve alone; one more would not fit; the reason names what ends first."""
    needs = NEEDS[kernel]
    bound = bound_of_sandboxes(Resources(free, descriptors, tasks), needs)

    def fits(n: int) -> dict[str, bool]:
        return {
            "memory": RESERVED.memory_bytes + n * needs.memory_bytes <= free,
            "descriptors": RESERVED.descriptors + n * needs.descriptors <= descriptors,
            "processes": RESERVED.tasks + n * needs.tasks <= tasks * 9 // 10,
        }

    assert bound.n_sandboxes >= 0
    assert bound.n_sandboxes == 0 or all(fits(bound.n_sandboxes).values())
    assert any(not ok and name in bound.reason for name, ok in fits(bound.n_sandboxes + 1).items())


@pytest.mark.parametrize(
    ("resources", "n", "says"),
    [
        (Resources(64 * MIB, 10**6, 10**6), 0, "64 MiB of memory are free"),
        (Resources(2**40, 256, 10**6), 10, "256 descriptors may be open"),
        (Resources(2**40, 10**6, 100), 8, "100 processes may run"),
        (Resources(24 << 30, 20_000, 32_768), 1656, "20000 descriptors"),
    ],
)
def test_bound_on_small_machines(resources: Resources, n: int, says: str) -> None:
    """A descriptor limit of 256 leaves a few sandboxes, 64 MB of free memory none; the reason says so."""
    bound = bound_of_sandboxes(resources, NEEDS["lean"])
    assert (bound.n_sandboxes, says in bound.reason) == (n, True)


def test_resources_of_this_machine() -> None:
    """What is read is within what there is, and enough for these tests."""
    found = read_resources()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.free_memory_bytes <= physical
    assert found.max_descriptors >= 256
    assert found.max_tasks > 100


def test_memory_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process's own groups leave less than the machine has, that is what is free."""
    monkeypatch.setattr(capacity, "free_memory_bytes", lambda: 5 * MIB)
    assert read_resources().free_memory_bytes == 5 * MIB
