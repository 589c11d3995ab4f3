"""Messages of a worker arrive in order, each once, however often the reader begins again."""

from __future__ import annotations

import asyncio
import random

from runner.cluster import outbox as module
from runner.cluster.messages import Ended
from runner.cluster.outbox import Outbox


async def test_a_reader_that_begins_again_misses_nothing() -> None:
    outbox = Outbox(linger_s=0.0)
    chance = random.Random(1)
    heard: list[str] = []

    async def write() -> None:
        for number in range(200):
            outbox.put(Ended(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        outbox.close(Ended("last"))
        outbox.put(Ended("too late"))

    writing = asyncio.create_task(write())
    after = 0
    while "last" not in heard:
        async for batch in outbox.batches(after):
            assert batch.first == after + 1
            heard += [message.attempt for message in batch.messages if isinstance(message, Ended)]
            after = batch.last
            if chance.random() < 0.5:
                outbox.acknowledge(after, {})
            if "last" in heard or chance.random() < 0.3:
                break
    await writing

    assert heard == [*map(str, range(200)), "last"]


async def test_answers_come_with_the_acknowledgement() -> None:
    outbox = Outbox()
    first, second = outbox.ask(Ended("a")), outbox.ask(Ended("b"))

    outbox.acknowledge(1, {1: True})
    outbox.acknowledge(2, {1: False, 2: "the disk is full"})

    assert await first is True
    assert await second == "the disk is full"


async def test_who_sends_much_waits_for_the_driver() -> None:
    outbox = Outbox(max_bytes=100)
    outbox.put(Ended("a"), n_bytes=101)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()

    outbox.acknowledge(1, {})

    await asyncio.wait([waiting], timeout=5)
    assert waiting.done()


async def test_big_messages_go_in_batches_of_their_own() -> None:
    outbox = Outbox(linger_s=0.0)
    for number in range(4):
        outbox.put(Ended(str(number)), n_bytes=module.MAX_BATCH_BYTES * 2 // 3)
    sizes = []
    async for batch in outbox.batches(0):
        sizes.append(len(batch.messages))
        if batch.last == 4:
            break

    assert sizes == [1, 1, 1, 1]


async def test_nobody_waits_for_a_driver_that_is_gone() -> None:
    outbox = Outbox(max_bytes=10)
    answer = outbox.ask(Ended("a"), n_bytes=11)

    outbox.abandon("it is gone")

    assert await answer == "it is gone"
    assert await outbox.ask(Ended("b")) == "it is gone"
    await outbox.room()
