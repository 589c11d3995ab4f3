"""Trajectories stick to an endpoint while it lives, and move when it does not."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runner.routing import MAX_FAILURES, MAX_HOMES, MAX_OVER_SHARE, SLACK_TRAJECTORIES, Router


def router(*capacities: int) -> Router:
    return Router(len(capacities), lambda index: capacities[index])


def eject(r: Router, index: int, now: float = 0.0) -> None:
    for _ in range(MAX_FAILURES):
        r.on_failure(now, index)


def test_trajectories_stick() -> None:
    """The second turn goes where the first one went, whatever the load is then."""
    r = router(10, 10)
    first = r.pick("a@1")
    for number in range(8):
        r.pick(f"other{number}@1")
    assert r.pick("a@1") == first


def test_new_ones_go_to_the_least_loaded() -> None:
    """Load is counted by what an endpoint bears: a large one gets more."""
    r = router(30, 10)
    counts = Counter(r.pick(f"{number}@1") for number in range(40))
    assert counts == {0: 30, 1: 10}
    for number in range(20):
        r.forget(f"{number}@1")
    assert (r.n_pinned(0) + r.n_pinned(1)) == 20


def test_failing_endpoint_is_ejected_and_only_its_trajectories_move() -> None:
    """The others stay where their prefix cache is; the moved ones stay where they went."""
    r = router(10, 10, 10)
    where = {f"{number}@1": r.pick(f"{number}@1") for number in range(9)}
    assert not r.on_failure(0.0, 1)
    r.on_success(1)  # in a row is what counts
    eject(r, 1)
    assert not r.is_ready(1)
    moved = {name: r.pick(name) for name in where}
    assert all(moved[name] == index for name, index in where.items() if index != 1)
    assert {moved[name] for name, index in where.items() if index == 1} == {0, 2}
    assert r.on_success(1)
    assert {name: r.pick(name) for name in where} == moved


def test_probes_come_less_and_less_often() -> None:
    """An ejected endpoint is looked at after a second, then after two, at most every half minute."""
    r = router(1, 1)
    eject(r, 0)
    at = [now / 2 for now in range(400) if r.take_probes(now / 2)]
    assert at[:3] == [1.0, 3.0, 7.0]
    assert max(b - a for a, b in pairwise(at)) == 30.0
    assert list(r.take_probes(1000.0)) == [0]
    r.on_success(0)
    assert list(r.take_probes(2000.0)) == []


def on_trial(*capacities: int) -> Router:
    """Return a router whose endpoint 0 was ejected and answers probes."""
    r = router(*capacities)
    eject(r, 0)
    assert list(r.take_probes(1.0)) == [0]
    r.on_probe(0)
    return r


def test_endpoint_that_answers_probes_gets_one_trajectory() -> None:
    """Listing models is not answering: one call tries it, and all others go where calls are answered."""
    r = on_trial(10, 10)
    assert [r.pick(name) for name in ("a@1", "b@1", "c@1", "a@1")] == [0, 1, 1, 0]
    assert not r.is_ready(0)
    assert r.on_success(0)
    assert (r.is_ready(0), r.pick("a@1"), r.pick("d@1")) == (True, 0, 0)


def test_failed_trial_keeps_the_time_between_probes() -> None:
    """It goes on to double: a server that hangs is tried less and less often."""
    r = on_trial(10, 10)
    assert r.pick("a@1") == 0
    assert not r.take_probes(100.0)  # the trial lasts as long as its call
    assert not r.on_failure(100.0, 0)
    assert (r.pick("b@1"), r.pick("a@1")) == (1, 1)
    assert not r.take_probes(101.9)
    assert list(r.take_probes(102.0)) == [0]
    r.on_probe(0)
    assert r.pick("c@1") == 0
    r.on_failure(200.0, 0)
    assert not r.take_probes(203.9)


def test_only_an_ejected_endpoint_is_tried() -> None:
    """A probe that is answered when a call was answered already changes nothing."""
    r = router(10, 10)
    r.on_probe(0)
    assert [r.pick(name) for name in ("a@1", "b@1", "c@1")] == [0, 1, 0]


def test_trial_that_ends_without_an_answer_is_open_to_the_next() -> None:
    """An attempt that is cancelled, or had stuck to the endpoint and comes back, leaves no trace."""
    r = router(10, 10)
    stuck = [name for name in ("a@1", "b@1", "c@1", "d@1") if r.pick(name) == 1]
    eject(r, 1)
    r.take_probes(1.0)
    r.on_probe(1)
    assert [r.pick(name) for name in stuck] == [1, 0]
    r.forget(stuck[0])
    assert r.pick("e@1") == 1


def test_with_none_ready_everybody_stays() -> None:
    """A single server that is down is asked again by whoever backs off; nobody is left without one."""
    r = router(5)
    assert r.pick("a@1") == 0
    eject(r, 0)
    assert (r.pick("a@1"), r.pick("b@1")) == (0, 0)
    assert not r.move("a@1", away_from=0)


@given(st.lists(st.tuples(st.sampled_from("pfsmet"), st.integers(0, 5), st.integers(0, 2)), max_size=200))
def test_pins_are_counted_right(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens, the endpoints' counts add up to the attempts that are known, none below zero."""
    r, known = router(3, 3, 3), set()
    for now, (what, attempt, index) in enumerate(steps):
        name = f"{attempt}@1"
        match what:
            case "p":
                r.pick(name)
                known.add(name)
            case "f":
                r.forget(name)
                known.discard(name)
            case "s":
                r.on_success(index)
            case "m":
                if r.move(name, away_from=index):
                    known.add(name)
                    assert r.pick(name) != index
            case "e":
                r.on_failure(float(now), index)
            case "t" if index in r.take_probes(now * 60.0):
                r.on_probe(index)
        counts = [r.n_pinned(n) for n in range(3)]
        assert min(counts) >= 0
        assert sum(counts) == len(known)


def test_an_engine_that_is_down_is_left_at_once_and_not_probed() -> None:
    """Only its trajectories move; when it is up again, what it did before does not count."""
    r = router(10, 10)
    where = {f"{number}@1": r.pick(f"{number}@1") for number in range(6)}
    eject(r, 0)
    r.set_down(0)
    assert not r.is_up(0)
    assert not r.take_probes(1e6)
    assert {r.pick(name) for name in where} == {1}
    r.set_up(0)
    assert r.is_ready(0)
    assert {r.pick(name) for name in where} == {1}
    assert r.pick("new@1") == 0


def test_an_ejected_endpoint_is_better_than_one_that_is_down() -> None:
    """The one may answer, the other cannot."""
    r = router(10, 10)
    assert r.pick("a@1") == 0
    r.set_down(0)
    eject(r, 1)
    assert r.pick("a@1") == 1


def test_an_added_endpoint_waits_until_it_is_up() -> None:
    """Even where there was none before."""
    r = Router(0, lambda index: 10)
    r.add()
    assert not r.is_up(0)
    r.set_up(0)
    assert r.pick("a@1") == 0


@given(st.lists(st.integers(1, 64), min_size=2, max_size=4), st.integers(1, 12), st.integers(2, 5))
def test_epochs_begin_where_their_sample_is_known(
    capacities: list[int], n_samples: int, n_epochs: int
) -> None:
    """Whatever the endpoints bear, an epoch that finds its sample's endpoint idle begins there."""
    r = router(*capacities)
    where = {}
    for sample in range(n_samples):
        where[sample] = r.pick(f"{sample}@1")
    for sample in range(n_samples):
        r.forget(f"{sample}@1")
    for epoch in range(2, n_epochs + 2):
        for sample in range(n_samples):
            assert r.pick(f"{sample}@{epoch}") == where[sample]
            r.forget(f"{sample}@{epoch}")


@given(
    st.lists(st.integers(1, 64), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.booleans()), max_size=200),
)
def test_no_endpoint_is_overloaded_for_a_sample(
    capacities: list[int], steps: list[tuple[int, int, bool]]
) -> None:
    """A new attempt goes where its sample began or to the least loaded, and never far beyond a fair share."""
    r, live = router(*capacities), set()
    for sample, epoch, begins in steps:
        name = f"{sample}@{epoch}"
        if not begins or name in live:
            r.forget(name)
            live.discard(name)
            continue
        loads = [r.n_pinned(index) / capacity for index, capacity in enumerate(capacities)]
        index = r.pick(name)
        live.add(name)
        share = len(live) * capacities[index] / sum(capacities)
        fair = min(capacities[index], max(MAX_OVER_SHARE * share, share + SLACK_TRAJECTORIES))
        assert r.n_pinned(index) <= fair or loads[index] == min(loads)


def test_too_many_epochs_of_a_sample_spread() -> None:
    """An engine that stands idle is worth more than a prompt that need not be read again."""
    r = router(64, 64)
    counts = Counter(r.pick(f"one@{epoch}") for epoch in range(64))
    assert max(counts.values()) <= 48


def test_epochs_follow_their_sample_to_another_endpoint() -> None:
    """When the one where they began is gone, the next epoch finds a new one for all that come after."""
    r = router(10, 10, 10)
    first = r.pick("a@1")
    r.set_down(first)
    second = r.pick("a@2")
    assert second != first
    r.forget("a@2")
    r.set_up(first)
    r.pick("b@1")
    assert r.pick("a@3") == second


def test_samples_of_long_ago_are_forgotten() -> None:
    """What is kept does not grow with the run."""
    r = router(10, 10)
    for number in range(2 * MAX_HOMES):
        r.pick(f"{number}@1")
        r.forget(f"{number}@1")
    assert len(r._homes) == MAX_HOMES
