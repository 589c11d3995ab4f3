from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandbox_pool.pool_state import Decision, HandOut, PoolState, Refuse, Retire, Start


def test_callers_are_served_in_order() -> None:
    """The first to come gets the first sandbox that is ready."""
    state = PoolState(max_sandboxes=1)
    assert state.want(10) == [Start(0)]
    assert state.want(11) == []
    assert state.started(0) == [HandOut(0, 10)]
    assert state.released(0) == []
    assert state.closed(0) == [Start(1)]
    assert state.started(1) == [HandOut(1, 11)]


def test_failed_start_is_told_to_the_first_caller() -> None:
    """A start that failed refuses the longest waiting caller, and the next is tried for."""
    state = PoolState(max_sandboxes=4, max_starting=1)
    state.want(1)
    state.want(2)
    assert state.start_failed(0) == [Refuse(1), Start(1)]


def test_failing_starts_without_callers_stop() -> None:
    """When a warm start fails nobody is retried for until a caller comes."""
    state = PoolState(max_sandboxes=4, min_idle=1, max_starting=1)
    assert state.refill() == [Start(0)]
    assert state.start_failed(0) == []
    assert state.want(1) == [Start(1)]


def test_shut_refuses_and_retires() -> None:
    """Closing refuses who waits, retires what is there, and what is still starting when it is up."""
    state = PoolState(max_sandboxes=4, max_starting=4)
    for ticket in range(3):
        state.want(ticket)
    state.started(0)
    assert state.shut() == [Refuse(1), Refuse(2), Retire(0)]
    assert state.want(9) == [Refuse(9)]
    assert state.started(1) == [Retire(1)]


class Pool(RuleBasedStateMachine):
    """Any order of events, as the real pool could see them."""

    @initialize(most=st.integers(1, 5), idle=st.integers(0, 3), starting=st.integers(1, 4))
    def open(self, most: int, idle: int, starting: int) -> None:
        """A pool of any size is opened."""
        self.state = PoolState(most, min_idle=idle, max_starting=starting)
        self.next_ticket = 0
        self.waiting: list[int] = []
        self.starting: set[int] = set()
        self.ready: set[int] = set()
        self.leases: dict[int, int] = {}
        self.ever_leased: set[int] = set()
        self.closing: set[int] = set()
        self.carry_out(self.state.refill())

    def carry_out(self, decisions: list[Decision]) -> None:
        """Do what the state decided, and check that it is possible."""
        for decision in decisions:
            match decision:
                case Start(sandbox):
                    assert not self.state.is_shut, "started after shut"
                    self.starting.add(sandbox)
                case HandOut(sandbox, ticket):
                    assert sandbox in self.ready, "handed out what is not ready"
                    assert sandbox not in self.ever_leased, "leased twice"
                    assert ticket == self.waiting.pop(0), "not in order"
                    self.ready.remove(sandbox)
                    self.ever_leased.add(sandbox)
                    self.leases[sandbox] = ticket
                case Refuse(ticket):
                    self.waiting.remove(ticket)
                case Retire(sandbox):
                    self.ready.discard(sandbox)
                    self.leases.pop(sandbox, None)
                    self.closing.add(sandbox)

    @rule()
    def want(self) -> None:
        """A caller asks."""
        self.waiting.append(self.next_ticket)
        self.next_ticket += 1
        self.carry_out(self.state.want(self.next_ticket - 1))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A waiting caller leaves."""
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.carry_out(self.state.give_up(ticket))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), outcome=st.sampled_from(["up", "failed", "abandoned"]))
    def finish_start(self, data: st.DataObject, outcome: str) -> None:
        """A start ends, in one of three ways."""
        sandbox = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(sandbox)
        if outcome == "up":
            self.ready.add(sandbox)
            self.carry_out(self.state.started(sandbox))
        elif outcome == "failed":
            self.carry_out(self.state.start_failed(sandbox))
        else:
            self.carry_out(self.state.start_abandoned(sandbox))

    @precondition(lambda self: self.leases or self.ready)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A caller is done, or an idle sandbox is found dead."""
        sandbox = data.draw(st.sampled_from(sorted({*self.leases, *self.ready})))
        self.leases.pop(sandbox, None)
        self.ready.discard(sandbox)
        self.closing.add(sandbox)
        self.carry_out(self.state.released(sandbox))

    @precondition(lambda self: self.closing)
    @rule(data=st.data())
    def finish_close(self, data: st.DataObject) -> None:
        """A closing sandbox is gone."""
        sandbox = data.draw(st.sampled_from(sorted(self.closing)))
        self.closing.remove(sandbox)
        self.carry_out(self.state.closed(sandbox))

    @precondition(lambda self: not self.state.is_shut)
    @rule()
    def shut(self) -> None:
        """The pool is closed."""
        self.carry_out(self.state.shut())
        assert not self.waiting

    @invariant()
    def agrees(self) -> None:
        """The state and this model of it agree, and nobody waits in vain."""
        if not hasattr(self, "state"):
            return
        assert self.state.n_live <= self.state.max_sandboxes
        assert self.state.starting == self.starting
        assert set(self.state.idle) == self.ready
        assert self.state.leased == set(self.leases)
        assert self.state.closing == self.closing
        assert not (self.waiting and self.ready), "someone waits while a sandbox is idle"
        if self.waiting and not self.state.is_shut:
            assert self.starting or self.state.n_live >= self.state.max_sandboxes, "nothing will ever come"

    def teardown(self) -> None:
        """After closing nothing is left."""
        if not hasattr(self, "state"):
            return
        if not self.state.is_shut:
            self.shut()
        for sandbox in sorted(self.starting):
            self.ready.add(sandbox)
            self.carry_out(self.state.started(sandbox))
        self.starting.clear()
        for sandbox in sorted(self.closing):
            self.carry_out(self.state.closed(sandbox))
        assert self.state.n_live == 0, "something is left after closing"


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
