"""Handing out attempts: each is with one worker at a time, whatever becomes of the workers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.cluster.coordinator import Coordinator


def three_workers(n: int, concurrency: int = 2) -> Coordinator:
    coordinator = Coordinator(window_factor=2)
    for name in "abc":
        coordinator.add_worker(name, concurrency)
    for number in range(n):
        coordinator.add(f"s{number}")
    return coordinator


def test_a_worker_holds_twice_its_concurrency_at_most() -> None:
    coordinator = three_workers(30)

    given_out = coordinator.assign()

    assert {name: len(attempts) for name, attempts in given_out.items()} == {"a": 4, "b": 4, "c": 4}
    assert coordinator.assign() == {}


def test_few_attempts_are_spread() -> None:
    given_out = three_workers(3).assign()

    assert given_out == {"a": ["s0"], "b": ["s1"], "c": ["s2"]}


def test_a_lost_workers_attempts_come_first() -> None:
    coordinator = three_workers(30)
    lost = coordinator.assign()["a"]

    loss = coordinator.lose("a")
    coordinator.ended("b", "s1")

    assert sorted(loss.requeued) == sorted(lost)
    assert coordinator.assign() == {"b": [lost[0]]}


def test_what_a_lost_worker_says_is_not_heard() -> None:
    coordinator = three_workers(6)
    coordinator.assign()
    coordinator.lose("a")
    coordinator.assign()

    assert not coordinator.ended("a", "s0")
    assert coordinator.owner_of("s0") in ("b", "c")


def test_an_attempt_that_was_alone_on_two_lost_workers_is_given_up() -> None:
    coordinator = three_workers(1)
    assert coordinator.assign() == {"a": ["s0"]}
    coordinator.begun("a", "s0")
    assert coordinator.lose("a").requeued == ("s0",)
    assert coordinator.assign() == {"b": ["s0"]}

    assert coordinator.lose("b").given_up == ("s0",)
    assert coordinator.is_idle


def test_one_that_ran_beside_others_is_found_alone() -> None:
    """Three times lost beside others, then alone: the others are not given up with it."""
    coordinator = Coordinator()
    for attempt in ("good", "bad"):
        coordinator.add(attempt)
    given_up: tuple[str, ...] = ()
    for number in range(10):
        worker = f"w{number}"
        coordinator.add_worker(worker, 4)
        for attempt in coordinator.assign().get(worker, []):
            coordinator.begun(worker, attempt)
        if coordinator.owns(worker, "good") and not coordinator.owns(worker, "bad"):
            coordinator.ended(worker, "good")
        while (more := coordinator.assign().get(worker)) is not None:
            coordinator.begun(worker, more[0])
        given_up += coordinator.lose(worker).given_up

    assert given_up == ("bad",)
    assert coordinator.is_idle


def test_what_waits_at_a_busy_worker_is_taken_back_for_an_idle_one() -> None:
    coordinator = Coordinator(window_factor=2)
    coordinator.add_worker("a", 2)
    for number in range(4):
        coordinator.add(f"s{number}")
    coordinator.assign()
    coordinator.begun("a", "s0")
    coordinator.begun("a", "s1")
    coordinator.add_worker("b", 1)

    assert coordinator.withdrawals() == {"a": ["s3"]}
    coordinator.returned("a", ["s3"])
    assert coordinator.assign() == {"b": ["s3"]}


def test_a_worker_that_leaves_is_given_nothing_and_gives_back_what_waits() -> None:
    coordinator = Coordinator(window_factor=2)
    coordinator.add_worker("a", 2)
    for number in range(3):
        coordinator.add(f"s{number}")
    coordinator.assign()
    coordinator.begun("a", "s0")
    coordinator.leaving("a")
    coordinator.add("s3")
    assert coordinator.assign() == {}

    coordinator.add_worker("b", 4)
    assert coordinator.assign() == {"b": ["s3"]}
    assert coordinator.withdrawals() == {"a": ["s1", "s2"]}


def test_a_worker_without_a_share_is_given_nothing() -> None:
    coordinator = Coordinator(window_factor=2)
    coordinator.add_worker("a", 0)
    coordinator.add("s0")
    assert (coordinator.assign(), coordinator.n_wanted) == ({}, 0)

    coordinator.set_concurrency("a", 1)
    assert coordinator.assign() == {"a": ["s0"]}


def test_nothing_is_taken_back_from_workers_that_have_no_more_than_they_run() -> None:
    coordinator = three_workers(2)
    coordinator.assign()

    assert coordinator.withdrawals() == {}


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 40), poison=st.sets(st.integers(0, 39), max_size=3))
def test_every_attempt_ends_once_whatever_is_lost(seed: int, n: int, poison: set[int]) -> None:
    """Workers are lost, join, retire and give back at random; a poisonous attempt kills whatever runs it.

    None ever holds more than its window.

    Each attempt ends once or is given up; only poisonous ones are given up unless workers die by themselves.
    """
    chance = random.Random(seed)
    window_factor = chance.choice((1.0, 1.5, 2.0))
    coordinator = Coordinator(window_factor)
    poisonous = {f"s{number}" for number in poison}
    left = [f"s{number}" for number in range(n)]
    ended: list[str] = []
    given_up: list[str] = []
    alive: list[str] = []
    concurrency: dict[str, int] = {}
    n_random_losses, n_workers = chance.randrange(4), 0

    for _ in range(5000):
        if not left and coordinator.is_idle:
            break
        if len(alive) < 3:
            n_workers += 1
            alive.append(f"w{n_workers}")
            concurrency[alive[-1]] = chance.randint(1, 4)
            coordinator.add_worker(alive[-1], concurrency[alive[-1]])
        for _ in range(min(coordinator.n_wanted, len(left))):
            coordinator.add(left.pop(0))
        coordinator.assign()
        for worker, attempts in coordinator.withdrawals().items():
            coordinator.returned(worker, attempts)
        owners = [coordinator.owned(worker) for worker in alive]
        windows = [max(1, int(window_factor * concurrency[worker])) for worker in alive]
        assert all(len(names) <= window for names, window in zip(owners, windows, strict=True))
        assert len({name for names in owners for name in names}) == sum(map(len, owners))
        worker = chance.choice(alive)
        held = list(coordinator.owned(worker))
        chosen = held[: chance.randint(0, len(held))]
        for attempt in chosen:
            coordinator.begun(worker, attempt)
        dies_by_itself = n_random_losses > 0 and chance.random() < 0.05
        if dies_by_itself or poisonous & set(chosen):
            n_random_losses -= dies_by_itself
            given_up += coordinator.lose(worker).given_up
            alive.remove(worker)
        elif chance.random() < 0.02:
            coordinator.retire(worker)
            alive.remove(worker)
        elif chosen:
            attempt = chance.choice(chosen)
            assert coordinator.ended(worker, attempt)
            assert not coordinator.ended(worker, attempt)
            ended.append(attempt)

    assert not left
    assert coordinator.is_idle
    assert sorted(ended + given_up) == sorted(f"s{number}" for number in range(n))
    assert not poisonous & set(ended)
