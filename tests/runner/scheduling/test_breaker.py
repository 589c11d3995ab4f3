"""When failures of the infrastructure pause a run, and what ends the pause."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from runner.config import BreakerConfig
from runner.scheduling.breaker import Breaker
from runner.scheduling.turnstile import Turnstile


def breaker(**settings: Any) -> Breaker:
    return Breaker(BreakerConfig(**({"window": 10, "max_share": 0.5, "max_pause_s": 100} | settings)))


def test_opens_for_one_reason_alone() -> None:
    """Many failures of many kinds are not one cause; more than the share of one kind are."""
    b = breaker()
    for number in range(10):
        assert not b.on_try(0.0, f"kind {number % 3}")
    assert b.reason is None
    opened = [b.on_try(0.0, "kind 0") for _ in range(6)]
    assert opened.count(True) == 1
    assert b.reason == "kind 0"


def test_some_failures_are_borne() -> None:
    """Half of all tries may fail without a pause."""
    b = breaker()
    assert not any(b.on_try(0.0, "down" if number % 2 else None) for number in range(100))


def test_first_good_try_closes_it_and_forgets() -> None:
    """After a pause the count begins anew."""
    b = breaker()
    for _ in range(5):
        b.on_try(0.0, "down")
    assert b.reason == "down"
    assert not b.on_try(1.0, "down")
    assert b.on_try(2.0, None)
    assert b.reason is None
    assert not b.on_try(3.0, "down")


def test_probes_and_the_end_of_hope() -> None:
    """One try is let through now and then, less and less often; after max_pause_s there is no hope."""
    b = breaker()
    for _ in range(5):
        b.on_try(10.0, "down")
    at = [now for now in range(10, 120) if b.take_probe(float(now))]
    assert at == [12, 16, 24, 40, 72]
    assert not b.is_hopeless(109.0)
    assert b.is_hopeless(110.0)


async def test_turnstile_lets_probes_through_and_opens(monkeypatch: Any) -> None:
    """While it is failing, tries wait; a probe passes alone; its success lets all pass, in order."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    monkeypatch.setattr("runner.scheduling.breaker.FIRST_PROBE_S", 0.05)
    events: list[str] = []
    gate = Turnstile(breaker(), lambda name, **details: events.append(name), events.append)
    for _ in range(5):
        gate.on_try("down")
    passed: list[int] = []
    one_passed = asyncio.Event()

    async def one(number: int) -> None:
        await gate.wait()
        passed.append(number)
        one_passed.set()

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0.02)
    assert len(passed) == events.count("breaker_probe")
    assert "too many tries failed for the same reason: down" in (gate.paused or "")
    async with asyncio.timeout(20):
        await one_passed.wait()
    n_probes = events.count("breaker_probe")
    assert passed == list(range(n_probes))
    gate.on_try(None)
    await asyncio.gather(*tasks)
    assert passed == [0, 1, 2, 3, 4]
    assert events == ["breaker_opened", *["breaker_probe"] * n_probes, "breaker_closed"]
    gate.close()


async def test_turnstile_gives_up(monkeypatch: Any) -> None:
    """When the pause has lasted too long the run is told to end, with the reason."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    ended: asyncio.Queue[str] = asyncio.Queue()
    gate = Turnstile(breaker(max_pause_s=0.03), lambda name, **details: None, ended.put_nowait)
    for _ in range(5):
        gate.on_try("down")
    async with asyncio.timeout(20):
        assert "down" in await ended.get()
    gate.close()


async def test_pause_by_a_person() -> None:
    """Nothing passes until it is resumed; waiting is safe to cancel."""
    gate = Turnstile(breaker(), lambda name, **details: None, lambda reason: None)
    gate.pause("lunch")
    assert gate.paused == "lunch"
    waiting = [asyncio.create_task(gate.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.resume()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None), type(None)]
    assert gate.paused is None
    gate.close()


async def test_pause_by_a_person_is_no_failing(monkeypatch: Any) -> None:
    """While a person holds the run nothing can go better, and that is not held against it."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    ended: asyncio.Queue[str] = asyncio.Queue()
    gate = Turnstile(breaker(max_pause_s=0.3), lambda name, **details: None, ended.put_nowait)
    for _ in range(5):
        gate.on_try("down")
    gate.pause("lunch")
    await asyncio.sleep(0.5)
    assert ended.empty()
    gate.resume()
    resumed_at = time.monotonic()
    async with asyncio.timeout(20):
        await ended.get()
    assert time.monotonic() - resumed_at >= 0.3, "it has all of max_pause_s again"
    gate.close()
