"""Engines that several runs share: started when needed, told of to whoever uses them, started anew when lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest

from runner import hosting
from runner.config import RunConfig, check_config
from runner.endpoint_table import EngineEndpoint
from runner.engines.replica import OnEvent
from runner.errors import AllEnginesLost
from runner.hosting import SharedEngines, engines_line

CONFIG = check_config({"model": "vllm:a/b"})
Events = list[tuple[str, dict[str, Any]]]


class FakeGroup:
    """A group with one engine, without a process."""

    def __init__(self, on_event: OnEvent) -> None:
        self.tell = on_event
        self.state: Literal["ready", "failed"] = "ready"
        self.is_closed = False

    def endpoints(self) -> tuple[EngineEndpoint, ...]:
        """Return the table."""
        return (EngineEndpoint("engine-0", "http://x/v1", 1, "m", 100, self.state),)

    async def close(self) -> None:
        """Stop."""
        await asyncio.sleep(0)
        self.is_closed = True


@pytest.fixture(name="groups")
def _groups(monkeypatch: pytest.MonkeyPatch) -> list[FakeGroup]:
    """The groups that were started."""
    started: list[FakeGroup] = []

    async def open_fake(config: RunConfig, log_dir: Path, *, on_event: OnEvent) -> FakeGroup:
        await asyncio.sleep(0)
        if log_dir.name == "broken":
            raise AllEnginesLost("none of 1 engines started")
        started.append(FakeGroup(on_event))
        on_event("engine_ready", {})
        return started[-1]

    monkeypatch.setattr(hosting, "open_engines", open_fake)
    return started


def recorder(events: Events) -> OnEvent:
    """Return what notes events down."""
    return lambda name, details: events.append((name, details))


async def test_runs_at_the_same_time_have_one_group(groups: list[FakeGroup], tmp_path: Path) -> None:
    """The second waits for the start that the first has begun; `close` ends it, more than once too."""
    shared = SharedEngines()

    async def use() -> object:
        async with shared.lend(CONFIG, tmp_path, lambda name, details: None) as group:
            return group

    async with asyncio.TaskGroup() as tasks:
        lent = [tasks.create_task(use()) for _ in range(3)]
    assert {task.result() for task in lent} == set(groups)
    assert [group.is_closed for group in groups] == [False]
    await shared.close()
    await shared.close()
    assert [group.is_closed for group in groups] == [True]


async def test_a_close_that_was_cancelled_is_finished_by_the_next(
    groups: list[FakeGroup], tmp_path: Path
) -> None:
    """It is not forgotten that engines run."""
    shared = SharedEngines()
    async with shared.lend(CONFIG, tmp_path, lambda name, details: None):
        pass
    closing = asyncio.create_task(shared.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not groups[0].is_closed
    await shared.close()
    assert groups[0].is_closed
    assert shared.log_dir is None


async def test_events_go_to_whoever_uses_the_engines(groups: list[FakeGroup], tmp_path: Path) -> None:
    """What happens between two runs is told to the next; each later run says whose logs to read."""
    shared = SharedEngines()
    first: Events = []
    second: Events = []
    async with shared.lend(CONFIG, tmp_path / "first", recorder(first)):
        groups[0].tell("engine_lost", {"epoch": 1})
    groups[0].tell("engine_ready", {"epoch": 2})
    async with shared.lend(CONFIG, tmp_path / "second", recorder(second)):
        groups[0].tell("engine_lost", {"epoch": 2})

    assert first == [("engine_ready", {}), ("engine_lost", {"epoch": 1})]
    assert second == [
        ("engine_ready", {"epoch": 2}),
        ("engines_shared", {"logs": str(tmp_path / "first")}),
        ("engine_lost", {"epoch": 2}),
    ]


async def test_lost_engines_are_started_anew_for_the_next_run(
    groups: list[FakeGroup], tmp_path: Path
) -> None:
    """The group that was given up is closed first; where none starts, the run after tries again."""
    shared = SharedEngines()
    line = engines_line(tmp_path, shared)
    assert line.startswith("starting engines")
    async with shared.lend(CONFIG, tmp_path, lambda name, details: None):
        assert str(tmp_path) in engines_line(tmp_path / "other", shared)
        groups[0].state = "failed"
    with pytest.raises(AllEnginesLost):
        async with shared.lend(CONFIG, tmp_path / "broken", lambda name, details: None):
            pytest.fail("nothing was started")
    assert groups[0].is_closed
    assert engines_line(tmp_path, shared) == line
    async with shared.lend(CONFIG, tmp_path, lambda name, details: None) as group:
        assert group is groups[1]
