"""Every hostile case on every kind of sandbox: it ends as it must, and nobody else notices."""

from __future__ import annotations

import pytest

from sandbox_pool import Status
from tests.sandbox_pool.hostile import (
    cases_escape,
    cases_files,
    cases_forgery,
    cases_memory,
    cases_output,
    cases_processes,
    cases_sabotage,
    cases_time,
)
from tests.sandbox_pool.hostile.arena import Arena
from tests.sandbox_pool.hostile.case import Case
from tests.sandbox_pool.hostile.setups import SETUPS

CASES: tuple[Case, ...] = (
    *cases_processes.CASES,
    *cases_memory.CASES,
    *cases_output.CASES,
    *cases_time.CASES,
    *cases_sabotage.CASES,
    *cases_forgery.CASES,
    *cases_escape.CASES,
    *cases_files.CASES,
)
DEFAULT = {"namespace-lean"}
"""What the default suite runs every case on; `make test-slow`, which CI runs too, takes the others."""

ELSEWHERE = {"landlock-ipykernel", "process-ipykernel"}
"""Not run on every case: the walls are those of the lean kernel there, the kernel that of `namespace`."""


def _arenas(kernel: str | None = None) -> pytest.MarkDecorator:
    """Parametrise a test with the kinds of sandboxes that have this kernel."""
    quick = {*DEFAULT, f"namespace-{kernel}"}
    found = [
        pytest.param(setup, id=str(setup), marks=[] if str(setup) in quick else [pytest.mark.slow])
        for setup in SETUPS
        if kernel in (None, setup.kernel) and (kernel or str(setup) not in ELSEWHERE)
    ]
    return pytest.mark.parametrize("arena", found, indirect=True, scope="module")


def _cases(kernel: str | None = None) -> pytest.MarkDecorator:
    """Parametrise a test with the cases that are for this kernel alone; None: for every one."""
    found = [case for case in CASES if case.kernel == kernel]
    return pytest.mark.parametrize("case", found, ids=lambda case: case.id)


@pytest.mark.kernel
@pytest.mark.asyncio(loop_scope="module")
@_cases()
@_arenas()
async def test_case(arena: Arena, case: Case) -> None:
    """The cell ends as it must; runner, neighbour and machine are as before, and the next acquire works."""
    await attack(arena, case)


@pytest.mark.kernel
@pytest.mark.asyncio(loop_scope="module")
@_cases("lean")
@_arenas("lean")
async def test_lean_case(arena: Arena, case: Case) -> None:
    """The same for what is said on the channel of a lean kernel."""
    await attack(arena, case)


@pytest.mark.kernel
@pytest.mark.asyncio(loop_scope="module")
@_cases("ipykernel")
@_arenas("ipykernel")
async def test_ipykernel_case(arena: Arena, case: Case) -> None:
    """The same for what is said on the sockets of an ipykernel."""
    await attack(arena, case)


async def attack(arena: Arena, case: Case) -> None:
    """Run a case in a fresh sandbox."""
    end = case.end(arena.tags)
    if missing := set(case.needs.split()) - arena.tags:
        pytest.skip(f"not promised here, and would harm this machine: {', '.join(missing)}")
    async with arena.ordeal(is_held=end.unpromised is None) as sandbox:
        for cell in case.before:
            assert (await sandbox.execute(arena.cell(cell))).status is Status.OK
        seen = await sandbox.execute(arena.cell(case.cell), timeout_s=case.timeout_s)
        problems = end.mismatches(seen)
        assert not problems, (problems, seen)
        if case.check is not None:
            await case.check(sandbox, seen)
        elif seen.kernel_alive:
            after = await sandbox.execute("1 + 1", timeout_s=5 if case.stays_usable else 0.25)
            assert after.status is not Status.SANDBOX_FAULT
            assert after.result == "2" or not case.stays_usable, after


def test_cases_are_whole() -> None:
    """There are at least 90 cases with names of their own, and each says how it ends on every kind of sandbox."""
    names = [case.id for case in CASES]
    assert len(names) >= 90
    assert len(set(names)) == len(names)
    for case in CASES:
        for setup in SETUPS:
            for more in (set(), {"root"}, {"root", "cgroup", "pids"}):
                assert case.end(frozenset({setup.tier, setup.kernel, *more})).statuses


@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_what_is_not_promised_says_so(tier: str) -> None:
    """A case that a tier is not to hold gives its reason, and is one of few."""
    known = {case.id: case.end(frozenset({tier, "lean", "root", "cgroup"})).unpromised for case in CASES}
    unheld = {name for name, reason in known.items() if reason is not None}
    assert all(known[name] for name in unheld)
    assert len(unheld) <= {"namespace": 0, "landlock": 12}[tier], unheld
