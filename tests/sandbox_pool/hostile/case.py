"""What a hostile case is: cells, and how the last of them must end on each kind of sandbox. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sandbox_pool import Observation, Sandbox, Status

QUICK_S = 20.0
"""For cells that end by themselves; never reached by one that does."""

HANG_S = 0.15
"""For cells that do not."""


@dataclass(frozen=True, slots=True)
class End:
    """How a cell must end. What is None is left open."""

    statuses: frozenset[Status]
    ename: str | None = None
    """Expression that the exception's whole name matches."""

    limits: tuple[str, ...] | None = None
    stdout: str | None = None
    """Expression that all of stdout matches, as a whole."""

    alive: bool | None = None
    unpromised: str | None = None
    """Why this kind of sandbox does not hold the attack; the rest says what is sure nevertheless."""

    def mismatches(self, seen: Observation) -> list[str]:
        """Return what is not as it must be, in words."""
        problems = []
        if seen.status not in self.statuses:
            problems.append(f"status is {seen.status}, not {' or '.join(sorted(self.statuses))}")
        ename = seen.error.ename if seen.error else ""
        if self.ename is not None and not re.fullmatch(self.ename, ename):
            problems.append(f"exception is {ename!r}, not {self.ename!r}")
        if self.limits is not None and seen.limits_hit != self.limits:
            problems.append(f"limits_hit is {seen.limits_hit}, not {self.limits}")
        if self.stdout is not None and not re.fullmatch(self.stdout, seen.stdout, re.DOTALL):
            problems.append(f"stdout is {seen.stdout[:2000]!r}, not {self.stdout!r}")
        if self.alive is not None and seen.kernel_alive != self.alive:
            problems.append(f"kernel_alive is {seen.kernel_alive}")
        return problems


def ends(*statuses: Status, alive: bool | None = None, stdout: str | None = None) -> End:
    """Return an end in one of these statuses."""
    return End(frozenset(statuses), alive=alive, stdout=stdout)


def ok(stdout: str | None = None) -> End:
    """Return the end of a cell that raises nothing, whose kernel lives."""
    return ends(Status.OK, alive=True, stdout=stdout)


def raises(ename: str, *limits: str, stdout: str | None = None) -> End:
    """Return the end of a cell that raises, whose kernel lives."""
    return End(frozenset({Status.ERROR}), ename=ename, limits=limits, stdout=stdout, alive=True)


def died() -> End:
    """Return the end of a cell that ends its kernel."""
    return ends(Status.DIED, alive=False)


def timeout(*, alive: bool | None = None, stdout: str | None = None) -> End:
    """Return the end of a cell that does not end."""
    return ends(Status.TIMEOUT, alive=alive, stdout=stdout)


def unpromised(reason: str, end: End) -> End:
    """Return what holds where the attack is not held."""
    return replace(end, unpromised=reason)


ANYHOW = ends(Status.OK, Status.ERROR, Status.TIMEOUT, Status.DIED, Status.PROTOCOL, Status.OUTPUT_LIMIT)
"""The code breaks its own kernel: how that looks is nobody's promise, but it is the code's doing."""

Check = Callable[[Sandbox, Observation], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """An attack.

    `@NAME@` in a cell stands for a fact of this machine or of the sandbox: see `Bait.facts`.
    """

    id: str
    cell: str
    ends: Mapping[str, End] | End
    """By tags of the setup, `namespace` or `landlock root` or ``: the first whose tags all hold counts."""

    before: tuple[str, ...] = ()
    """Cells that prepare it, and end with OK."""

    timeout_s: float = QUICK_S
    kernel: str | None = None
    """The only kernel that it is written for."""

    needs: str = ""
    """Tags without which it would harm this machine, so that it is not run."""

    stays_usable: bool = True
    """Whether a kernel that is alive afterwards must compute 1 + 1."""

    check: Check | None = None
    """What else must hold before the sandbox is closed."""

    def end(self, tags: frozenset[str]) -> End:
        """Return how it must end on a setup with these tags."""
        if isinstance(self.ends, End):
            return self.ends
        return next(end for wanted, end in self.ends.items() if set(wanted.split()) <= tags)
