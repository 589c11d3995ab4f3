from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandbox_pool.pool_state import Decision, HandOut, Kind, PoolState, Refuse, Retire, Start

A = Kind("a")
B = Kind("b")
W = Kind("a", Path("/data"))


def pool(max_sandboxes: int = 4, **habits: float) -> PoolState:
    """Return a state whose usual kind is A."""
    return PoolState(max_sandboxes, A, **habits)  # type: ignore[arg-type]


def lease(state: PoolState, kind: Kind, ticket: int, now: float) -> list[Decision]:
    """A caller comes at `now` as the pool sees to it: a hit, or a wait."""
    state.ask(kind, now)
    sandbox = state.take(kind)
    if sandbox is None:
        return state.want(ticket, kind, now)
    return [HandOut(sandbox, ticket), *state.refill(now)]


def test_callers_of_a_kind_are_served_in_order() -> None:
    """The first to come gets the first sandbox that is ready."""
    state = pool(1)
    assert state.want(10, A, 0) == [Start(0, A)]
    assert state.want(11, A, 0) == []
    assert state.started(0, 1) == [HandOut(0, 10)]
    assert state.released(0, 2) == []
    assert state.closed(0, 3) == [Start(1, A)]
    assert state.started(1, 4) == [HandOut(1, 11)]


def test_starts_are_made_in_the_order_of_callers_of_all_kinds() -> None:
    """When room is short it goes to who came first, whatever the kind."""
    state = pool(1)
    assert state.want(0, A, 0) == [Start(0, A)]
    assert state.want(1, B, 0) == []
    assert state.want(2, A, 0) == []
    state.started(0, 1)
    state.released(0, 2)
    assert state.closed(0, 3) == [Start(1, B)]


def test_a_caller_can_be_the_first() -> None:
    """A caller that was let down after its lease waits before all others."""
    state = pool(1)
    state.want(0, A, 0)
    state.want(1, A, 0)
    state.want(2, A, 0, is_first=True)
    assert state.started(0, 1) == [HandOut(0, 2)]


def test_the_oldest_idle_one_is_taken() -> None:
    """Ready sandboxes are leased in the order in which they became ready."""
    state = pool(min_idle=2)
    assert state.refill(0) == [Start(0, A), Start(1, A)]
    state.started(1, 1)
    state.started(0, 2)
    assert [state.take(A), state.take(A), state.take(A)] == [1, 0, None]


def test_a_pool_full_of_another_kind_makes_room() -> None:
    """A caller whose kind has none, while the pool is full of idle ones of another, makes one of those retire."""
    state = pool(2, min_idle=2)
    state.refill(0)
    state.started(0, 1)
    state.started(1, 1)
    assert state.want(7, B, 2) == [Retire(0)]
    assert state.want(8, B, 2) == [Retire(1)]
    assert state.closed(0, 3) == [Start(2, B)]
    assert state.started(2, 4) == [HandOut(2, 7)]


def test_room_is_made_from_what_exceeds_its_target_first() -> None:
    """An idle sandbox that its kind's target calls for is retired only when there is no other."""
    state = pool(2, min_idle=1, max_starting=3)
    state.refill(0)
    state.started(0, 1)
    state.want(5, B, 1)
    state.give_up(5, 1)
    state.started(1, 9)
    assert state.want(6, W, 10) == [Retire(1)]


def test_not_more_is_retired_than_can_be_started() -> None:
    """Callers of another kind make room only for as many as may start at a time."""
    state = pool(4, min_idle=4, max_starting=4)
    state.refill(0)
    for sandbox in range(4):
        state.started(sandbox, 1)
    state.max_starting = 1
    assert state.want(0, B, 2) == [Retire(0)]
    assert state.want(1, B, 2) == []


def test_a_burst_starts_a_few_at_a_time() -> None:
    """256 callers at once make no more starts at a time than max_starting, and all are served in order."""
    state = pool(300, max_starting=2)
    starting = [d.sandbox for n in range(256) for d in lease(state, A, n, 0) if isinstance(d, Start)]
    served: list[int] = []
    while starting:
        assert state.n_starting <= 2
        for decision in state.started(starting.pop(0), 1):
            match decision:
                case Start(sandbox):
                    starting.append(sandbox)
                case HandOut(_, ticket):
                    served.append(ticket)
    assert served == list(range(256))


# -- the warm target


def test_the_warm_target_follows_demand() -> None:
    """It is rate x latency x 2 while callers come, never above max_idle, and min_idle when they are gone."""
    state = pool(100, min_idle=1, max_idle=10, max_starting=100)
    state.refill(0)
    state.started(0, 0.5)  # a start takes 0.5 s
    assert state.target(A, 0.5) == 1
    for n in range(400):  # 10/s over four windows
        lease(state, A, n, 1 + n / 10)
    assert state.target(A, 41) == 10
    state.max_idle = 100
    assert state.target(A, 41) in (10, 11)
    assert state.target(A, 51) in (3, 4, 5)
    assert state.target(A, 141) == 1


def test_a_single_caller_makes_no_kind_warm() -> None:
    """Whoever opens a pool for one sandbox gets one; the second that is asked for brings a spare one."""
    state = pool(max_idle=4)
    assert lease(state, A, 0, 0) == [Start(0, A)]
    assert state.started(0, 0.1) == [HandOut(0, 0)]
    assert state.refill(0.2) == []
    assert lease(state, A, 1, 1) == [Start(1, A), Start(2, A)]


def test_a_kind_with_a_workspace_is_warm_only_by_repeated_demand() -> None:
    """A sandbox that shows one sample's folder is started ahead only when that folder is asked for thrice."""
    state = pool(9, max_idle=4, max_starting=9)
    assert lease(state, W, 0, 0) == [Start(0, W)]
    assert lease(state, W, 1, 0.1) == [Start(1, W)]
    assert lease(state, W, 2, 0.2) == [Start(2, W), Start(3, W)]


def test_no_warming_where_none_is_wanted() -> None:
    """With max_idle 0 nothing is started ahead, however many come."""
    state = pool(100, max_idle=0, max_starting=100)
    n_starts = sum(isinstance(d, Start) for n in range(50) for d in lease(state, A, n, n / 100))
    assert n_starts == 50


def test_callers_come_before_warm_targets() -> None:
    """No start is made ahead while a caller has none."""
    state = pool(3, max_idle=3, max_starting=1)
    assert lease(state, A, 0, 0) == [Start(0, A)]
    assert lease(state, A, 1, 0) == []
    assert lease(state, B, 2, 0) == []
    assert state.started(0, 1) == [HandOut(0, 0), Start(1, A)]
    assert state.started(1, 1) == [HandOut(1, 1), Start(2, B)]


def test_what_is_not_called_for_retires() -> None:
    """Once demand is gone the idle ones above min_idle retire when they have been ready for max_idle_s."""
    state = pool(8, min_idle=1, max_idle=8, max_starting=8, max_idle_s=30)
    state.refill(0)
    for ticket in range(4):
        state.want(ticket, A, 0) if ticket else None
    for ticket in range(1, 4):
        state.give_up(ticket, 0)
    for sandbox in range(4):
        state.started(sandbox, 10.0 + sandbox)
    assert state.n_idle == 4
    assert state.has_plans
    assert state.tick(39.9) == []
    assert state.tick(41.0) == [Retire(0), Retire(1)]
    assert state.tick(99.0) == [Retire(2)]
    assert not state.has_plans


def test_kinds_of_the_past_are_forgotten() -> None:
    """A kind that nobody asks for any more leaves nothing behind but its profile's latency."""
    state = pool(max_idle=2, max_idle_s=5)
    for n in range(100):
        kind = Kind("a", Path(f"/data/{n}"))
        lease(state, kind, n, n)
        state.started(n, n + 0.5)
        state.released(n, n + 0.6)
        state.closed(n, n + 0.7)
        state.tick(n + 1)
    assert len(state.shelves) < 30
    assert state.has_plans
    state.tick(200)
    assert list(state.shelves) == [A]
    assert not state.has_plans


# -- failures


def test_a_failed_start_is_tried_once_more() -> None:
    """The first failure of a start makes another, the second refuses the longest waiting caller of its kind."""
    state = pool(max_starting=1)
    state.want(1, B, 0)
    state.want(2, A, 0)
    state.want(3, B, 0)
    assert state.start_failed(0, 1, is_hopeless=False) == [Start(1, B)]
    assert state.start_failed(1, 2, is_hopeless=False) == [Refuse(1), Start(2, A)]


def test_one_mishap_counts_once() -> None:
    """Starts that fail together, as when a zygote dies, refuse nobody who was not tried for again."""
    state = pool(8, min_idle=3, max_starting=8)
    state.refill(0)
    state.want(9, A, 0)
    assert state.n_starting == 4
    decisions = [state.start_failed(sandbox, 1, is_hopeless=False) for sandbox in range(4)]
    assert decisions == [[], [], [], [Start(4, A)]]
    assert state.start_failed(4, 2, is_hopeless=False) == [Refuse(9)]


def test_a_hopeless_start_refuses_all_of_its_kind() -> None:
    """Where no start of a kind can succeed nobody is kept waiting for one."""
    state = pool(max_starting=1)
    for ticket, kind in enumerate((A, B, A)):
        state.want(ticket, kind, 0)
    assert state.start_failed(0, 1, is_hopeless=True) == [Refuse(0), Refuse(2), Start(1, B)]


def test_failing_warm_starts_come_at_growing_intervals() -> None:
    """While nobody waits a failing kind is tried again after 1, 2, 4, ... 64 s, and at once for a caller."""
    state = pool(min_idle=1, max_starting=1)
    now, pauses = 0.0, []
    starts = state.refill(now)
    for _ in range(9):
        failed_at = now
        (start,) = starts
        assert state.start_failed(start.sandbox, now, is_hopeless=False) == []
        while not (starts := state.tick(now)):
            assert state.has_plans
            now += 0.5
        pauses.append(now - failed_at)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    state.start_failed(starts[0].sandbox, now, is_hopeless=False)
    assert lease(state, A, 1, now) == [Start(10, A)]
    assert state.started(10, now) == [HandOut(10, 1), Start(11, A)]


def test_shut_refuses_and_retires() -> None:
    """Closing refuses who waits, retires what is there, and what is still starting when it is up."""
    state = pool(max_starting=4)
    for ticket in range(3):
        state.want(ticket, A, 0)
    state.started(0, 1)
    assert state.shut() == [Refuse(1), Refuse(2), Retire(0)]
    assert state.want(9, A, 2) == [Refuse(9)]
    assert state.started(1, 2) == [Retire(1)]
    assert state.start_failed(2, 2, is_hopeless=False) == []
    assert state.tick(99) == []


class Pool(RuleBasedStateMachine):
    """Any order of events, at any times, as the real pool could see them."""

    @initialize(
        most=st.integers(1, 5),
        idle=st.integers(0, 3),
        most_idle=st.integers(0, 4),
        starting=st.integers(1, 4),
    )
    def open(self, most: int, idle: int, most_idle: int, starting: int) -> None:
        """A pool of any size is opened."""
        self.now = 0.0
        self.state = pool(most, min_idle=idle, max_idle=most_idle, max_idle_s=5.0, max_starting=starting)
        self.next_ticket = 0
        self.waiting: dict[int, Kind] = {}
        self.n_failures: dict[int, int] = {}
        self.starting: dict[int, Kind] = {}
        self.ready: dict[int, Kind] = {}
        self.leased: set[int] = set()
        self.ever_leased: set[int] = set()
        self.closing: set[int] = set()
        self.carry_out(self.state.refill(self.now))

    def carry_out(self, decisions: list[Decision]) -> None:
        """Do what the state decided, and check that it is possible."""
        for decision in decisions:
            match decision:
                case Start(sandbox, kind):
                    assert not self.state.is_shut, "started after shut"
                    assert sandbox not in {*self.starting, *self.ready, *self.ever_leased}, (
                        "number used twice"
                    )
                    self.starting[sandbox] = kind
                case HandOut(sandbox, ticket):
                    kind = self.ready.pop(sandbox)
                    assert ticket == next(t for t, k in self.waiting.items() if k == kind), "not in order"
                    del self.waiting[ticket]
                    self.lease(sandbox)
                case Refuse(ticket):
                    del self.waiting[ticket]
                case Retire(sandbox):
                    assert sandbox not in self.leased or self.state.is_shut, "retired what is in use"
                    self.ready.pop(sandbox, None)
                    self.leased.discard(sandbox)
                    self.closing.add(sandbox)

    def lease(self, sandbox: int) -> None:
        """A caller has it."""
        assert sandbox not in self.ever_leased, "leased twice"
        self.ever_leased.add(sandbox)
        self.leased.add(sandbox)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.carry_out(self.state.tick(self.now))

    @rule(kind=st.sampled_from([A, A, B, W]), is_first=st.sampled_from([False, False, False, True]))
    def acquire(self, kind: Kind, is_first: bool) -> None:
        """A caller asks: a hit, or a wait, behind all others or before them."""
        self.state.ask(kind, self.now)
        sandbox = self.state.take(kind)
        if sandbox is not None:
            assert self.ready.pop(sandbox) == kind, "took what is not ready, or of another kind"
            assert kind not in self.waiting.values(), "overtook who waits"
            self.lease(sandbox)
            self.carry_out(self.state.refill(self.now))
            return
        assert kind not in self.ready.values(), "waits beside an idle one"
        self.next_ticket += 1
        newcomer = {self.next_ticket: kind}
        self.waiting = newcomer | self.waiting if is_first else self.waiting | newcomer
        self.carry_out(self.state.want(self.next_ticket, kind, self.now, is_first=is_first))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A waiting caller leaves."""
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[ticket]
        self.carry_out(self.state.give_up(ticket, self.now))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), outcome=st.sampled_from(["up", "up", "failed", "hopeless", "abandoned"]))
    def finish_start(self, data: st.DataObject, outcome: str) -> None:
        """A start ends, in one of four ways."""
        sandbox = data.draw(st.sampled_from(sorted(self.starting)))
        kind = self.starting.pop(sandbox)
        if outcome == "up":
            self.ready[sandbox] = kind
            self.carry_out(self.state.started(sandbox, self.now))
        elif outcome == "abandoned":
            self.carry_out(self.state.start_abandoned(sandbox, self.now))
        else:
            self.carry_out(self.state.start_failed(sandbox, self.now, is_hopeless=outcome == "hopeless"))
            assert outcome == "failed" or kind not in self.waiting.values(), "waits for what cannot come"

    @precondition(lambda self: self.leased or self.ready)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A caller is done, or an idle sandbox is found dead."""
        sandbox = data.draw(st.sampled_from(sorted({*self.leased, *self.ready})))
        self.leased.discard(sandbox)
        self.ready.pop(sandbox, None)
        self.closing.add(sandbox)
        self.carry_out(self.state.released(sandbox, self.now))

    @precondition(lambda self: self.closing)
    @rule(data=st.data())
    def finish_close(self, data: st.DataObject) -> None:
        """A closing sandbox is gone."""
        sandbox = data.draw(st.sampled_from(sorted(self.closing)))
        self.closing.remove(sandbox)
        self.carry_out(self.state.closed(sandbox, self.now))

    @precondition(lambda self: not self.state.is_shut)
    @rule()
    def shut(self) -> None:
        """The pool is closed."""
        self.carry_out(self.state.shut())
        assert not self.waiting

    @invariant()
    def agrees(self) -> None:
        """The state and this model of it agree."""
        if not hasattr(self, "state"):
            return
        state = self.state
        shelves = state.shelves.items()
        assert {n: kind for kind, shelf in shelves for n in shelf.idle} == self.ready
        assert {n: kind for kind, shelf in shelves for n in shelf.starting} == self.starting
        assert (state.leased, state.closing) == (self.leased, self.closing)
        assert (state.n_idle, state.n_starting, state.n_waiting) == tuple(
            len(part) for part in (self.ready, self.starting, self.waiting)
        )

    @invariant()
    def is_bounded(self) -> None:
        """Neither the sandboxes, nor the starts at a time, nor the warm targets leave their bounds."""
        if not hasattr(self, "state"):
            return
        state = self.state
        assert state.n_live <= state.max_sandboxes
        assert state.n_starting <= state.max_starting
        assert state.min_idle <= state.target(A, self.now) <= max(state.min_idle, state.max_idle)
        assert all(0 <= state.target(kind, self.now) <= state.max_idle for kind in (B, W))

    @invariant()
    def lets_nobody_wait_in_vain(self) -> None:
        """Whoever waits has a start under way, or there is no room for one and room is being made if it can."""
        if not hasattr(self, "state") or self.state.is_shut:
            return
        n_short = 0
        for kind in (A, B, W):
            n_waiting = list(self.waiting.values()).count(kind)
            assert not (n_waiting and kind in self.ready.values()), "someone waits while a sandbox is idle"
            n_short += max(0, n_waiting - list(self.starting.values()).count(kind))
        may_start = len(self.starting) < self.state.max_starting
        if n_short and may_start:
            assert self.state.n_live == self.state.max_sandboxes, "a start could be made and is not"
            assert self.closing or not self.ready, "room could be made and is not"

    def teardown(self) -> None:
        """After closing nothing is left."""
        if not hasattr(self, "state"):
            return
        if not self.state.is_shut:
            self.shut()
        for sandbox in sorted(self.starting):
            self.ready[sandbox] = self.starting.pop(sandbox)
            self.carry_out(self.state.started(sandbox, self.now))
        for sandbox in sorted(self.closing):
            self.carry_out(self.state.closed(sandbox, self.now))
        assert self.state.n_live == 0, "something is left after closing"


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
