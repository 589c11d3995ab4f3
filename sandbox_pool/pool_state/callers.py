"""Who waits for a sandbox, in the order in which they are served. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox_pool.pool_state.decisions import Kind


@dataclass(slots=True)
class _Caller:
    kind: Kind
    fails_from: int | None = None
    """Number of the first sandbox whose failed start refuses it; None: no start has failed it yet."""


class Callers:
    """A queue of callers by number. Those of one kind are served in order, whatever the others wait for."""

    def __init__(self) -> None:
        self._callers: OrderedDict[int, _Caller] = OrderedDict()
        self._n: Counter[Kind] = Counter()

    def __len__(self) -> int:
        return len(self._callers)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._callers

    def __iter__(self) -> Iterator[int]:
        return iter(self._callers)

    def kinds(self) -> Iterator[Kind]:
        """Return what each waits for, in order."""
        return (caller.kind for caller in self._callers.values())

    def n_of(self, kind: Kind) -> int:
        """Return how many wait for a kind."""
        return self._n.get(kind, 0)

    def of(self, kind: Kind) -> Iterator[int]:
        """Return those who wait for a kind, in order."""
        return (ticket for ticket, caller in self._callers.items() if caller.kind == kind)

    def add(self, ticket: int, kind: Kind, *, is_first: bool) -> None:
        """Let one wait, behind all others or before them."""
        self._callers[ticket] = _Caller(kind)
        self._n[kind] += 1
        if is_first:
            self._callers.move_to_end(ticket, last=False)

    def remove(self, ticket: int) -> None:
        """Let one wait no longer."""
        kind = self._callers.pop(ticket).kind
        self._n[kind] -= 1
        if not self._n[kind]:
            del self._n[kind]

    def failed_by(self, sandbox: int, kind: Kind, *, next_sandbox: int) -> list[int]:
        """Return whom a failed start refuses, at most one, or mark who is tried for once more.

        The longest waiting caller of the kind is tried for once more, and refused when that fails too. A
        second failure counts only if its start began after the first was known: what fails several
        starts at once is one mishap.
        """
        for ticket in self.of(kind):
            caller = self._callers[ticket]
            if caller.fails_from is None:
                caller.fails_from = next_sandbox
                return []
            if sandbox >= caller.fails_from:
                return [ticket]
        return []
