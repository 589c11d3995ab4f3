"""An unfinished attempt goes on at its last turn, where executing again agrees."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from bench_data import Samples
from runner.errors import JournalError, ModelUnavailable
from runner.journal import Journal, read_events, read_failures, read_inflight, read_trajectories
from runner.models import Completion, ModelRequest
from runner.plan import attempts
from runner.trajectory.divergence import first_difference
from sandbox_pool import Display, FakePool, Observation, SandboxError, Status, Stream
from tests.runner.factories import FakeModel, rollout_settings, sample, scheduler

N_CELLS = 3


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 0.0)


class Model(FakeModel):
    """Three cells and an answer; `fails_at` are turns that fail, once each."""

    def __init__(self, *fails_at: int) -> None:
        self.fails_at = list(fails_at)
        self.asked: list[int] = []

    async def complete(self, request: ModelRequest) -> Completion:
        await asyncio.sleep(0)
        self.asked.append(request.n_turns_done)
        if self.fails_at and request.n_turns_done == self.fails_at[0]:
            self.fails_at.pop(0)
            raise ModelUnavailable("the engine died")
        n = request.n_turns_done
        assert len(request.conversation) == 1 + 2 * n
        return Completion(f"```python\ncell {n}\n```" if n < N_CELLS else "done", "stop")


def pool(script: Any = None) -> FakePool:
    """Return sandboxes whose cells print their code."""
    return FakePool(
        lambda number: (
            script or (lambda code: Observation(Status.OK, (Stream("stdout", f"{code} took 1.5 s\n"),)))
        )
    )


async def run(path: Path, model: Model, sandboxes: FakePool, **settings: Any) -> None:
    with Journal(path) as journal:
        runner = scheduler(rollout_settings(model, sandboxes, **settings), journal, 1)
        await runner.run(attempts(Samples.of([sample("s")]), 1, journal.done))


def names(path: Path) -> list[str]:
    return [event["event"] for event in read_events(path)]


async def test_a_try_goes_on_where_the_engine_failed(tmp_path: Path) -> None:
    """Three recorded cells are executed again in a fresh sandbox; none is asked for again."""
    model, sandboxes = Model(N_CELLS), pool()
    await run(tmp_path, model, sandboxes)
    (row,) = read_trajectories(tmp_path)
    assert model.asked == [0, 1, 2, 3, 3]
    assert [s.executed for s in sandboxes.sandboxes] == [["cell 0", "cell 1", "cell 2"]] * 2
    assert (row["stop_reason"], len(row["turns"]), row["n_resumed_turns"]) == ("answer", 4, 3)
    assert [m["role"] for m in row["messages"]] == ["user", *["assistant", "user"] * 3, "assistant"]
    assert row["usage"]["total_tokens"] == 0
    assert names(tmp_path) == ["attempt_resumed"]
    assert list(read_inflight(tmp_path)) == []


async def test_another_process_goes_on(tmp_path: Path) -> None:
    """What failed for good is gone on with by the next run of the same command."""
    await run(tmp_path, Model(2), pool(), max_tries=1)
    (failure,) = read_failures(tmp_path)
    assert (failure["stop_reason"], len(failure["turns"])) == ("engine_error", 2)
    (unfinished,) = read_inflight(tmp_path)
    assert (unfinished.attempt, len(unfinished.turns)) == ("s@1", 2)

    model = Model()
    await run(tmp_path, model, pool())
    assert model.asked == [2, 3]
    (row,) = read_trajectories(tmp_path)
    assert (row["n_resumed_turns"], len(row["turns"])) == (2, 4)


def diverging(number: int) -> Any:
    """The second sandbox computes something else."""
    return lambda code: Observation(Status.OK, (Stream("stdout", f"{code} gave {number}\n"),))


@pytest.mark.parametrize("policy", ["restart", "continue"])
async def test_divergence_is_decided_by_the_config(tmp_path: Path, policy: str) -> None:
    """Another observation than was recorded begins the attempt again, or is let pass and told."""
    model = Model(2)
    await run(tmp_path, model, FakePool(diverging), resume={"on_divergence": policy})
    (row,) = read_trajectories(tmp_path)
    (event,) = read_events(tmp_path)
    difference = "turn 1, output 1 (stdout), line 1: 'cell 0 gave 0' before, 'cell 0 gave 1' now"
    if policy == "restart":
        assert (model.asked, event["event"], event["reason"]) == (
            [0, 1, 2, 0, 1, 2, 3],
            "attempt_restarted",
            difference,
        )
        assert row["n_resumed_turns"] == 0
    else:
        assert (model.asked, event["event"], event["divergence"]) == (
            [0, 1, 2, 2, 3],
            "attempt_resumed",
            difference,
        )
        assert row["messages"][2]["content"].endswith("cell 0 gave 0\n"), "what the model saw stays"
    assert len(row["turns"]) == 4


@pytest.mark.parametrize(
    ("resume", "reason"),
    [
        ({"unit": "attempts"}, "resume.unit is attempts"),
        ({"max_reexecute_s": 1}, "took 6 s, more than the 1 s"),
    ],
)
async def test_what_is_not_gone_on_from(tmp_path: Path, resume: dict[str, Any], reason: str) -> None:
    """The config may want whole attempts, or no long execution twice."""
    slow = Observation(Status.OK, duration_s=3.0)
    model = Model(2)
    await run(tmp_path, model, pool(lambda code: slow), resume=resume)
    assert model.asked == [0, 1, 2, 0, 1, 2, 3]
    (event,) = read_events(tmp_path)
    assert event["event"] == "attempt_restarted"
    assert reason in event["reason"]


@pytest.mark.parametrize(
    ("n_broken", "asked", "events"),
    [
        (1, [0, 1, 2, 2, 3], ["attempt_resumed"]),
        (2, [0, 1, 2, 0, 1, 2, 3], ["attempt_restarted"]),
    ],
)
async def test_sandbox_that_breaks_on_executing_again(
    tmp_path: Path, n_broken: int, asked: list[int], events: list[str]
) -> None:
    """Once may be any sandbox's bad luck; what breaks a second one too is not executed for ever."""

    def script(number: int) -> Any:
        async def cell(code: str) -> Observation:
            if 1 <= number <= n_broken:
                raise SandboxError("broken")
            return Observation(Status.OK)

        return cell

    model = Model(2)
    await run(tmp_path, model, FakePool(script), max_tries=4)
    (row,) = read_trajectories(tmp_path)
    assert (model.asked, names(tmp_path)) == (asked, events)
    assert [one["owner"] for one in row["tries"]] == ["engine", *["sandbox"] * n_broken]


async def test_pictures_of_recorded_turns_stay(tmp_path: Path) -> None:
    """A picture is written once and named once; one that is gone begins the attempt again."""
    shown = Observation(Status.OK, (Display({"image/png": b"png"}),))
    await run(tmp_path, Model(2), pool(lambda code: shown), max_tries=1)
    await run(tmp_path, Model(), pool(lambda code: shown))
    (row,) = read_trajectories(tmp_path)
    assert [artifact["path"] for artifact in row["artifacts"]] == [
        f"artifacts/s/1/displayed/turn00{n}-1.png" for n in (1, 2, 3)
    ]
    assert all((tmp_path / artifact["path"]).read_bytes() == b"png" for artifact in row["artifacts"])
    assert row["n_resumed_turns"] == 2


async def test_torn_and_foreign_logs_begin_again(tmp_path: Path) -> None:
    """A torn last turn is left out; a file that is not ours is no reason to stop."""
    await run(tmp_path, Model(2), pool(), max_tries=1)
    (path,) = (tmp_path / "inflight").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    model = Model()
    await run(tmp_path, model, pool())
    assert model.asked == [1, 2, 3]

    (tmp_path / "trajectories.jsonl").unlink()
    path.write_bytes(b"not ours\n")
    model = Model()
    await run(tmp_path, model, pool())
    assert model.asked == [0, 1, 2, 3]
    assert names(tmp_path)[-1] == "attempt_restarted"


async def test_torn_turn_is_cut_before_another_is_written(tmp_path: Path) -> None:
    """What goes on behind a torn turn can be gone on with again."""
    await run(tmp_path, Model(2), pool(), max_tries=1)
    (path,) = (tmp_path / "inflight").iterdir()
    path.write_bytes(path.read_bytes() + b'{"turn":{"completion":"cel')
    await run(tmp_path, Model(3), pool(), max_tries=1)
    (unfinished,) = read_inflight(tmp_path)
    assert len(unfinished.turns) == 3

    model = Model()
    await run(tmp_path, model, pool())
    assert (model.asked, names(tmp_path)) == ([3], ["attempt_resumed"] * 2)


async def test_short_write_of_a_turn_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a turn leaves the turns before it as they were."""
    with Journal(tmp_path) as journal:
        log = journal.turn_log("s@1", {})
        log.append(b'{"turn":1,"messages":[]}\n')
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr("os.write", lambda fd, data: write(fd, data[:9]))
            with pytest.raises(JournalError, match="the disk is full"):
                log.append(b'{"turn":2,"messages":[]}\n')
        log.append(b'{"turn":3,"messages":[]}\n')
    (unfinished,) = read_inflight(tmp_path)
    assert [row["turn"] for row in unfinished.turns] == [1, 3]


@pytest.mark.parametrize(("n_chars", "is_on_loop"), [(100, True), (100_000, False)])
async def test_long_outputs_are_compared_off_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_chars: int, is_on_loop: bool
) -> None:
    """A megabyte of lines takes longer to compare than all else may wait."""
    threads = []

    def compare(recorded: Any, now: Any) -> str | None:
        threads.append(threading.current_thread())
        return first_difference(recorded, now)

    monkeypatch.setattr("runner.trajectory.recovery.first_difference", compare)
    long = Observation(Status.OK, (Stream("stdout", "x" * n_chars),), n_output_bytes=n_chars)
    await run(tmp_path, Model(1), pool(lambda code: long))
    assert [thread is threading.main_thread() for thread in threads] == [is_on_loop]


async def test_working_time_goes_on(tmp_path: Path) -> None:
    """The limit of working time counts what was recorded, not the execution again."""
    await run(tmp_path, Model(2), pool(), max_tries=1)
    (path,) = (tmp_path / "inflight").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"working_s":0', b'"working_s":9'))
    await run(tmp_path, Model(), pool(), working_s=5)
    (row,) = read_trajectories(tmp_path)
    assert (row["stop_reason"], len(row["turns"])) == ("time_limit", 2)
