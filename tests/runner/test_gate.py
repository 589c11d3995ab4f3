"""A limit that can change: nobody too many, nobody forgotten, first come first served."""

from __future__ import annotations

import asyncio
import random

from runner.gate import Gate


async def test_first_come_first_served() -> None:
    """Waiters hold it in the order in which they came, one a release."""
    gate, order = Gate(1), []

    async def hold(number: int) -> None:
        async with gate.hold():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(hold(number))
    assert order == [0, 1, 2, 3, 4]
    assert (gate.n_held, gate.n_waiting) == (0, 0)


async def test_limit_can_grow_and_shrink() -> None:
    """Growing admits waiters at once; shrinking sends nobody away, and admits nobody until there is room."""
    gate = Gate(1)
    await gate.acquire()
    waiting = [asyncio.create_task(gate.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (gate.n_held, gate.n_waiting) == (1, 3)
    gate.limit = 3
    await asyncio.sleep(0)
    assert (gate.n_held, gate.n_waiting) == (3, 1)
    gate.limit = 1
    gate.release()
    gate.release()
    assert (gate.n_held, gate.n_waiting) == (1, 1)
    gate.release()
    await asyncio.gather(*waiting)
    assert gate.n_held == 1


async def test_newcomers_do_not_overtake() -> None:
    """Somebody who waits is not passed by somebody who asks when a place becomes free."""
    gate = Gate(1)
    await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await asyncio.sleep(0)
    gate.release()
    assert not gate.try_acquire()
    await waiting
    gate.release()
    assert gate.try_acquire()


async def test_no_place_is_lost_to_cancellation() -> None:
    """Whatever is cancelled when, the places that are left are all there, and never too many are held."""
    gate, chance, most = Gate(4), random.Random(1), 0

    async def hold() -> None:
        nonlocal most
        async with gate.hold():
            most = max(most, gate.n_held)
            await asyncio.sleep(0 if chance.random() < 0.5 else 0.001)

    tasks = [asyncio.create_task(hold()) for _ in range(400)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            gate.limit = chance.randint(1, 6)
        await asyncio.sleep(0)
    gate.limit = 4
    assert (gate.n_held, gate.n_waiting) == (0, 0)
    assert most <= 6
    async with asyncio.timeout(20):
        for _ in range(4):
            await gate.acquire()
    assert not gate.try_acquire()
