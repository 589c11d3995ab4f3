"""Which sandbox to start, hand out and retire. Pure: events and times in, decisions out.

Sandboxes and waiting callers are numbers here. A sandbox is starting, idle, leased or closing; it is
leased at most once and never goes back. Ready ones lie on shelves, one for each kind; one bound holds for
all kinds together. Callers of a kind are served in the order in which they came, and starts are made for
callers in the order in which they came, whatever their kind.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from sandbox_pool.pool_state.callers import Callers
from sandbox_pool.pool_state.decisions import Decision, HandOut, Kind, Refuse, Retire, Start
from sandbox_pool.pool_state.demand import Demand, Latencies, warm_target

N_LATENCIES = 256
"""Starts whose latency is kept."""

_ENOUGH = 1.5
"""Recent arrivals from which on a kind is kept ready: one alone says nothing of a next."""

_ENOUGH_WITH_WORKSPACE = 2.5
"""The same where a sandbox serves one sample only, whose attempts come to an end."""

_FORGOTTEN = 0.1
_MAX_PAUSE_S = 64.0


@dataclass(slots=True)
class Shelf:
    """What there is of one kind."""

    idle: dict[int, float] = field(default_factory=dict)
    """Sandbox -> when it became ready; the oldest first."""

    starting: dict[int, float] = field(default_factory=dict)
    """Sandbox -> when its start began."""

    demand: Demand = field(default_factory=Demand)
    n_failures: int = 0
    """Starts that failed since one succeeded."""

    warm_from: float = 0.0
    """When nobody waits nothing is started before this time."""


@dataclass(slots=True)
class PoolState:
    """The state of a pool. Methods return what to do now, in order; `now` never goes back."""

    max_sandboxes: int
    default: Kind
    """The kind that min_idle is about."""

    min_idle: int = 0
    max_idle: int = 0
    """Sandboxes of one kind that are kept ready at most, whatever the demand."""

    max_idle_s: float = 60.0
    """How long one is kept ready that the demand does not call for."""

    max_starting: int = 2
    is_shut: bool = False
    n_started: int = 0
    n_failed_starts: int = 0
    n_closed: int = 0
    leased: set[int] = field(default_factory=set)
    closing: set[int] = field(default_factory=set)
    shelves: dict[Kind, Shelf] = field(default_factory=dict)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=N_LATENCIES))
    """How long the last starts took that succeeded."""

    _callers: Callers = field(default_factory=Callers)
    _kinds: dict[int, Kind] = field(default_factory=dict)
    """Of the sandboxes that are starting or idle."""

    _n_starting: int = 0
    _latencies: defaultdict[str, Latencies] = field(default_factory=lambda: defaultdict(Latencies))
    """Of the starts of each profile."""

    _next: int = 0

    def __post_init__(self) -> None:
        self.shelves[self.default] = Shelf()

    @property
    def n_idle(self) -> int:
        """Sandboxes that are ready and nobody's."""
        return len(self._kinds) - self._n_starting

    @property
    def n_starting(self) -> int:
        """Sandboxes whose start is not over."""
        return self._n_starting

    @property
    def n_waiting(self) -> int:
        """Callers that have no sandbox yet."""
        return len(self._callers)

    @property
    def n_live(self) -> int:
        """Sandboxes that exist, from the start of their start to the end of their end."""
        return len(self._kinds) + len(self.leased) + len(self.closing)

    def is_idle(self, sandbox: int) -> bool:
        """Whether it is ready and nobody's."""
        kind = self._kinds.get(sandbox)
        return kind is not None and sandbox in self.shelves[kind].idle

    def target(self, kind: Kind, now: float) -> int:
        """Return how many of a kind should be ready: rate of arrivals x latency of a start x 2, in bounds."""
        least = self.min_idle if kind == self.default else 0
        shelf = self.shelves.get(kind)
        if shelf is None:
            return least
        wanted = warm_target(
            shelf.demand.n_recent(now),
            self._latencies[kind.profile].typical_s,
            n_enough=_ENOUGH if kind.workspace is None else _ENOUGH_WITH_WORKSPACE,
        )
        return max(least, min(wanted, self.max_idle))

    # -- callers

    def ask(self, kind: Kind, now: float) -> None:
        """Somebody will `take` or `want` a sandbox: what the warm target follows."""
        self._shelf(kind).demand.add(now)

    def take(self, kind: Kind) -> int | None:
        """Lease the one that is ready for longest, if any; `refill` afterwards."""
        shelf = self.shelves.get(kind)
        if shelf is None or not shelf.idle:
            return None
        sandbox = next(iter(shelf.idle))
        del shelf.idle[sandbox], self._kinds[sandbox]
        self.leased.add(sandbox)
        return sandbox

    def want(self, ticket: int, kind: Kind, now: float, *, is_first: bool = False) -> list[Decision]:
        """A caller for whom there was none to `take` waits for one, as the first of all if so marked."""
        if self.is_shut:
            return [Refuse(ticket)]
        assert not self._shelf(kind).idle, "would wait beside an idle sandbox: take() it"
        self._callers.add(ticket, kind, is_first=is_first)
        return self._decide(now)

    def give_up(self, ticket: int, now: float) -> list[Decision]:
        """A caller that was not served yet no longer waits."""
        if ticket not in self._callers:
            return []
        self._callers.remove(ticket)
        return self._decide(now)

    # -- sandboxes

    def started(self, sandbox: int, now: float) -> list[Decision]:
        """A start has succeeded."""
        kind = self._kinds[sandbox]
        shelf = self.shelves[kind]
        latency_s = now - self._remove_start(sandbox)
        self.latencies_s.append(latency_s)
        self._latencies[kind.profile].add(latency_s)
        self.n_started += 1
        shelf.n_failures, shelf.warm_from = 0, now
        if self.is_shut:
            self.closing.add(sandbox)
            return [Retire(sandbox)]
        handed_out: list[Decision] = []
        if self._callers.n_of(kind):
            ticket = next(self._callers.of(kind))
            self._callers.remove(ticket)
            self.leased.add(sandbox)
            handed_out.append(HandOut(sandbox, ticket))
        else:
            self._kinds[sandbox] = kind
            shelf.idle[sandbox] = now
        return handed_out + self._decide(now)

    def start_failed(self, sandbox: int, now: float, *, is_hopeless: bool) -> list[Decision]:
        """A start has failed and left nothing behind. A caller is refused by its second: see `Callers`.

        Args:
            sandbox: which.
            now: the time.
            is_hopeless: all others would fail, so that all who wait for the kind are refused.
        """
        kind = self._kinds[sandbox]
        self._remove_start(sandbox)
        self.n_failed_starts += 1
        shelf = self.shelves[kind]
        shelf.n_failures += 1
        shelf.warm_from = now + min(_MAX_PAUSE_S, 2.0 ** min(shelf.n_failures - 1, 10))
        if is_hopeless:
            refused = list(self._callers.of(kind))
        else:
            refused = self._callers.failed_by(sandbox, kind, next_sandbox=self._next)
        for ticket in refused:
            self._callers.remove(ticket)
        return [Refuse(ticket) for ticket in refused] + self._decide(now)

    def start_abandoned(self, sandbox: int, now: float) -> list[Decision]:
        """A start was given up by ourselves and left nothing behind."""
        self._remove_start(sandbox)
        return self._decide(now)

    def released(self, sandbox: int, now: float) -> list[Decision]:
        """A leased or idle sandbox is being closed (given back, or found dead)."""
        if sandbox in self.leased:
            self.leased.remove(sandbox)
        elif self.is_idle(sandbox):
            del self.shelves[self._kinds.pop(sandbox)].idle[sandbox]
        else:
            return []
        self.closing.add(sandbox)
        return self._decide(now)

    def closed(self, sandbox: int, now: float) -> list[Decision]:
        """A closing sandbox is gone."""
        self.closing.remove(sandbox)
        self.n_closed += 1
        return self._decide(now)

    # -- the pool

    def refill(self, now: float) -> list[Decision]:
        """Nothing but `take` has happened: start what the warm targets ask for."""
        return self._decide(now)

    def tick(self, now: float) -> list[Decision]:
        """Time has passed: retire what was ready for long and is not called for, forget kinds of the past."""
        if self.is_shut:
            return []
        retired: list[Decision] = []
        for kind, shelf in list(self.shelves.items()):
            n_surplus = len(shelf.idle) - self.target(kind, now)
            for sandbox, since in list(shelf.idle.items())[: max(0, n_surplus)]:
                if now - since >= self.max_idle_s:
                    retired.append(self._retire(sandbox))
            is_empty = not (shelf.idle or shelf.starting or self._callers.n_of(kind))
            if is_empty and kind != self.default and shelf.demand.n_recent(now) < _FORGOTTEN:
                del self.shelves[kind]
        return retired + self._decide(now)

    @property
    def has_plans(self) -> bool:
        """Whether the passing of time alone may change anything, so that `tick` is worth calling."""
        is_settled = len(self.shelves) == 1 and len(self.shelves[self.default].idle) == self.min_idle
        return not (self.is_shut or is_settled)

    def shut(self) -> list[Decision]:
        """Hand out nothing more, and retire all that is there; those starting when they are up."""
        self.is_shut = True
        decisions: list[Decision] = [Refuse(ticket) for ticket in self._callers]
        self._callers = Callers()
        decisions += [
            self._retire(sandbox) for shelf in self.shelves.values() for sandbox in list(shelf.idle)
        ]
        decisions += [Retire(sandbox) for sandbox in self.leased]
        self.closing |= self.leased
        self.leased.clear()
        return decisions

    # -- decisions

    def _decide(self, now: float) -> list[Decision]:
        if self.is_shut:
            return []
        return [*self._for_callers(now), *self._for_shelves(now)]

    def _for_callers(self, now: float) -> Iterator[Decision]:
        """Start for those who wait; where the pool is full, make room from what is idle of other kinds."""
        expected: dict[Kind, int] = {}
        n_short = 0
        for kind in self._callers.kinds():
            n_expected = expected.setdefault(kind, len(self.shelves[kind].starting))
            if n_expected:
                expected[kind] = n_expected - 1
            elif self._n_starting + n_short >= self.max_starting:
                break
            elif self.n_live < self.max_sandboxes:
                yield self._start(kind, now)
            else:
                n_short += 1
        for _ in range(min(n_short - len(self.closing), self.n_idle)):
            yield self._retire(self._most_dispensable(now))

    def _for_shelves(self, now: float) -> Iterator[Decision]:
        """Start what the warm targets ask for, with what room the callers leave."""
        for kind, shelf in self.shelves.items():
            n_room = min(self.max_sandboxes - self.n_live, self.max_starting - self._n_starting)
            if n_room <= 0:
                return
            n_spare = len(shelf.idle) + max(0, len(shelf.starting) - self._callers.n_of(kind))
            n_missing = self.target(kind, now) - n_spare if now >= shelf.warm_from else 0
            for _ in range(min(n_missing, n_room)):
                yield self._start(kind, now)

    def _most_dispensable(self, now: float) -> int:
        """Return the idle sandbox that is ready for longest, of kinds with more than their target if any."""

        def rank(kind: Kind) -> tuple[bool, float]:
            idle = self.shelves[kind].idle
            return len(idle) <= self.target(kind, now), next(iter(idle.values()))

        kinds = [kind for kind, shelf in self.shelves.items() if shelf.idle]
        return next(iter(self.shelves[min(kinds, key=rank)].idle))

    # -- changes

    def _shelf(self, kind: Kind) -> Shelf:
        return self.shelves.setdefault(kind, Shelf())

    def _start(self, kind: Kind, now: float) -> Start:
        sandbox = self._next
        self._next += 1
        self._n_starting += 1
        self._kinds[sandbox] = kind
        self.shelves[kind].starting[sandbox] = now
        return Start(sandbox, kind)

    def _remove_start(self, sandbox: int) -> float:
        """Return when the start began."""
        self._n_starting -= 1
        return self.shelves[self._kinds.pop(sandbox)].starting.pop(sandbox)

    def _retire(self, sandbox: int) -> Retire:
        """Of an idle one."""
        del self.shelves[self._kinds.pop(sandbox)].idle[sandbox]
        self.closing.add(sandbox)
        return Retire(sandbox)
