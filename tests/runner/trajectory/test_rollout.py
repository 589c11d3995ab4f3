"""One trajectory, on fakes: what ends it, what is recorded, what is cleaned up."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench_data import Sample, SampleFile
from runner.config import Prices
from runner.errors import ContextOverflow, ModelRefused, ModelUnavailable, ReplayEnded
from runner.models import Completion, ModelRequest
from runner.protocols import ToolCall
from runner.records import Owner, StopReason, Usage
from runner.trajectory.outcome import Outcome
from runner.trajectory.rollout import RolloutSettings
from sandbox_pool import (
    DEFAULT_SPEC,
    Display,
    FakePool,
    FakeSandbox,
    Observation,
    PoolTimeout,
    SandboxSetupError,
    SandboxSpec,
    SandboxStartError,
    Status,
    Stream,
    UnsupportedHost,
)
from tests.runner.factories import FakeModel, rollout, rollout_settings, sample

OK = Observation(Status.OK, (Stream("stdout", "1\n"),))
DEAD = Observation(Status.DIED, kernel_alive=False)
CELL = "```python\nx\n```"


class Exhausted(FakePool):
    """Has one sandbox, and no other ever becomes free."""

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
        if self.sandboxes:
            raise PoolTimeout("none became free")
        async with super().acquire(spec) as sandbox:
            yield sandbox


class ListModel(FakeModel):
    """Gives these replies in order, the last one for ever; an exception is raised."""

    name = "list"

    def __init__(self, *replies: str | Completion | BaseException) -> None:
        self.replies = replies
        self.seen: list[list[dict[str, Any]]] = []

    async def complete(self, request: ModelRequest) -> Completion:
        await asyncio.sleep(0)
        self.seen.append(list(request.conversation.messages))
        reply = self.replies[min(request.n_turns_done, len(self.replies) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        return Completion(reply, "stop") if isinstance(reply, str) else reply


def settings(model: ListModel, pool: FakePool, **limits: Any) -> RolloutSettings:
    return rollout_settings(model, pool, system_prompt="be good", globs=("output/**",), **limits)


async def run(
    tmp_path: Path,
    *replies: str | Completion | BaseException,
    script: Callable[[int], Any] = lambda n: [OK] * 20,
    pool: FakePool | None = None,
    asked: Sample | None = None,
    **limits: Any,
) -> tuple[Outcome, FakePool, ListModel]:
    model = ListModel(*replies)
    pool = pool or FakePool(script)
    outcome = await rollout(settings(model, pool, **limits), asked or sample("s"), tmp_path).run()
    assert pool.n_leased == 0, "every sandbox is given back"
    return outcome, pool, model


async def test_answer_without_action_needs_no_sandbox(tmp_path: Path) -> None:
    """A model that only talks never leases a sandbox."""
    outcome, pool, model = await run(tmp_path, "42")

    assert (outcome.stop_reason, outcome.owner, outcome.error) == (StopReason.ANSWER, Owner.MODEL, None)
    assert pool.sandboxes == []
    assert model.seen[0] == [{"role": "system", "content": "be good"}, {"role": "user", "content": "task s"}]


async def test_turns_and_messages(tmp_path: Path) -> None:
    """The conversation alternates, each turn holds its action and observation, the answer has none."""
    outcome, pool, _ = await run(tmp_path, CELL, CELL, "done")

    assert [m["role"] for m in outcome.conversation.messages] == [
        "system",
        "user",
        *["assistant", "user"] * 2,
        "assistant",
    ]
    assert [turn.action for turn in outcome.turns] == ["x", "x", None]
    assert outcome.turns[0].observation is not None
    assert outcome.turns[0].observation["status"] == "ok"
    assert len(pool.sandboxes) == 1
    assert pool.sandboxes[0].executed == ["x", "x"]


async def test_inputs_are_there_before_the_first_cell(tmp_path: Path) -> None:
    """Files and the output folder are in the sandbox when the model's code begins."""
    source = tmp_path / "source.txt"
    source.write_bytes(b"from disk")
    files = [SampleFile("data/a.txt", lambda: b"made"), SampleFile("data/b.txt", source)]
    _, pool, _ = await run(tmp_path / "out", CELL, "done", asked=sample("s", files=tuple(files)))

    assert pool.sandboxes[0].files == {"data/a.txt": b"made", "data/b.txt": b"from disk"}
    assert pool.sandboxes[0].folders == {"output"}


@pytest.mark.parametrize(
    ("replies", "limits", "reason"),
    [
        pytest.param([CELL], {"max_turns": 3}, StopReason.MAX_TURNS, id="turns"),
        pytest.param(
            [Completion(CELL, "stop", usage=Usage(60, 40, 100))], {"max_total_tokens": 250},
            StopReason.TOKEN_LIMIT, id="tokens",
        ),
        pytest.param([Completion("```python\nx", "length")], {}, StopReason.LENGTH, id="reply-cut"),
        pytest.param([CELL, ContextOverflow("too long")], {}, StopReason.CONTEXT_OVERFLOW, id="overflow"),
        pytest.param([CELL, ReplayEnded("no more")], {}, StopReason.MODEL_ERROR, id="replay-ended"),
    ],
)  # fmt: skip
async def test_what_the_model_has_to_answer_for(
    tmp_path: Path, replies: list[Any], limits: dict[str, Any], reason: StopReason
) -> None:
    """A limit or a mistake of the model ends the trajectory as data."""
    outcome, _, _ = await run(tmp_path, *replies, **limits)
    assert (outcome.stop_reason, outcome.owner) == (reason, Owner.MODEL)


async def test_turn_limit_counts_model_calls(tmp_path: Path) -> None:
    """With max_turns 3 the model is asked three times, and its last action is executed."""
    outcome, pool, model = await run(tmp_path, CELL, max_turns=3)

    assert len(model.seen) == len(outcome.turns) == 3
    assert len(pool.sandboxes[0].executed) == 3
    assert outcome.conversation.messages[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("error", "reason", "owner"),
    [
        pytest.param(ModelUnavailable("down"), StopReason.ENGINE_ERROR, Owner.ENGINE, id="engine"),
        pytest.param(ModelRefused("no"), StopReason.MODEL_ERROR, Owner.ENGINE, id="refused"),
    ],
)
async def test_what_the_engine_has_to_answer_for(
    tmp_path: Path, error: Exception, reason: StopReason, owner: Owner
) -> None:
    """A failing server is never the model's failure; the turns so far are kept."""
    outcome, _, _ = await run(tmp_path, CELL, error)

    assert (outcome.stop_reason, outcome.owner, outcome.error) == (reason, owner, str(error))
    assert len(outcome.turns) == 1


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(lambda: FakePool(start_error=SandboxStartError("no")), id="no-start"),
        pytest.param(lambda: FakePool(lambda n: [Observation(Status.SANDBOX_FAULT)]), id="fault"),
        pytest.param(lambda: FakePool(lambda n: [SandboxStartError("x")]), id="raised"),
        pytest.param(lambda: FakePool(start_error=PoolTimeout("none became free")), id="none-free"),
        pytest.param(lambda: Exhausted(lambda n: [DEAD]), id="none-free-for-the-second-kernel"),
    ],
)
async def test_what_the_sandbox_has_to_answer_for(tmp_path: Path, pool: Callable[[], FakePool]) -> None:
    """A fault of ours is a sandbox_error, whose owner is the sandbox."""
    outcome, _, _ = await run(tmp_path, CELL, pool=pool())
    assert (outcome.stop_reason, outcome.owner) == (StopReason.SANDBOX_ERROR, Owner.SANDBOX)


async def test_host_that_cannot_run_sandboxes_ends_the_run(tmp_path: Path) -> None:
    """What no attempt can do better is raised, not recorded once per attempt."""
    with pytest.raises(UnsupportedHost):
        await run(tmp_path, CELL, pool=FakePool(start_error=UnsupportedHost("no")))


async def test_missing_input_file_is_named(tmp_path: Path) -> None:
    """An input that vanished is not the model's fault."""
    gone = SampleFile("data/a", tmp_path / "gone")
    outcome, _, _ = await run(tmp_path, CELL, asked=sample("s", files=(gone,)))

    assert outcome.owner is Owner.SANDBOX
    assert "input data/a of s cannot be copied" in (outcome.error or "")


async def test_time_limit_ends_a_call_that_never_answers(tmp_path: Path) -> None:
    """Wall time bounds a trajectory whatever the model does."""

    class Silent(ListModel):
        async def complete(self, request: ModelRequest) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    one = rollout(settings(Silent(), FakePool(), working_s=0.02), sample(), tmp_path)
    assert (await one.run()).stop_reason is StopReason.TIME_LIMIT


async def test_cell_gets_no_more_than_what_is_left(tmp_path: Path) -> None:
    """A cell's time limit is its own or the rest of the trajectory's, whichever is less."""
    _, pool, _ = await run(tmp_path, CELL, "done", working_s=7, cell_s=60)
    assert 6 < pool.sandboxes[0].timeouts_s[0] <= 7


async def test_dead_kernel_is_replaced_and_files_are_kept(tmp_path: Path) -> None:
    """After a kernel died the model is told, and goes on in a fresh sandbox with its files."""
    died = Observation(Status.DIED, kernel_alive=False)

    def script(n: int) -> Any:
        return [died] if n == 0 else [OK]

    model = ListModel(CELL, CELL, "done")
    pool = FakePool(script)
    one = rollout(settings(model, pool), sample(), tmp_path)

    original_acquire = pool.acquire

    def acquire(spec: SandboxSpec) -> Any:
        context = original_acquire(spec)
        if pool.sandboxes:
            assert pool.sandboxes[0].is_closed, "the dead sandbox is given back before the next is asked for"
        return context

    pool.acquire = acquire  # type: ignore[method-assign]
    outcome = await one.run()

    assert outcome.stop_reason is StopReason.ANSWER
    assert len(pool.sandboxes) == 2
    assert "Kernel died" in outcome.conversation.messages[3]["content"]


async def test_artifacts_are_collected(tmp_path: Path) -> None:
    """Output files are copied to the attempt's folder and named with size and sha256."""

    def script(n: int) -> Any:
        async def cell(code: str) -> Observation:
            await pool.sandboxes[n].put("output/a.txt", b"hello")
            await pool.sandboxes[n].put("elsewhere.txt", b"no")
            return OK

        return cell

    pool = FakePool(script)
    outcome, _, _ = await run(tmp_path, CELL, "done", pool=pool)

    assert [artifact.path for artifact in outcome.artifacts] == ["artifacts/s/1/output/a.txt"]
    assert outcome.artifacts[0].bytes == 5
    assert (tmp_path / "output/a.txt").read_bytes() == b"hello"


async def test_pictures_are_artifacts_never_inline(tmp_path: Path) -> None:
    """A displayed picture lies beside the journal; the record holds its path and hash."""
    picture = Observation(Status.OK, (Display({"image/png": b"\x89PNG", "text/plain": "<Figure>"}),))
    outcome, _, _ = await run(tmp_path, CELL, "done", script=lambda n: [picture])

    observation = outcome.turns[0].observation
    assert observation is not None
    data = observation["outputs"][0]["data"]
    assert data["text/plain"] == "<Figure>"
    assert data["image/png"]["path"] == outcome.artifacts[0].path == "artifacts/s/1/displayed/turn001-1.png"
    assert (tmp_path / "displayed/turn001-1.png").read_bytes() == b"\x89PNG"


async def test_cancelling_closes_the_sandbox_and_keeps_the_turns(tmp_path: Path) -> None:
    """A cancelled rollout gives its sandbox back; what was finished can still be recorded."""
    blocked = asyncio.Event()

    def script(n: int) -> Any:
        async def cell(code: str) -> Observation:
            blocked.set()
            await asyncio.Event().wait()
            raise AssertionError

        return cell

    pool = FakePool(script)
    one = rollout(settings(ListModel(CELL), pool), sample(), tmp_path)
    running = asyncio.ensure_future(one.run())
    await blocked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert pool.n_leased == 0
    assert one.outcome.turns[0].action == "x"


async def test_dead_kernel_may_have_left_files_in_the_way(tmp_path: Path) -> None:
    """What the code made of its folders is carried over, even where inputs or the output folder were."""
    dead = Observation(Status.DIED, kernel_alive=False)

    def script(n: int) -> Any:
        def die(_: str) -> Observation:
            files = pool.sandboxes[0].files
            del files["data/a.csv"]
            files |= {"data/a.csv/x": b"deep", "output": b"no folder"}
            return dead

        return die if n == 0 else [OK]

    pool = FakePool(script)
    files = [SampleFile("data/a.csv", lambda: b"1"), SampleFile("data/b.csv", lambda: b"2")]
    outcome, _, _ = await run(tmp_path, CELL, CELL, "done", pool=pool, asked=sample("s", files=tuple(files)))

    assert (outcome.stop_reason, outcome.owner) == (StopReason.ANSWER, Owner.MODEL)
    assert pool.sandboxes[1].files == {"data/a.csv/x": b"deep", "output": b"no folder", "data/b.csv": b"2"}
    assert not list(tmp_path.rglob(".carried"))


async def test_files_of_a_dead_kernel_are_kept_when_time_ends(tmp_path: Path) -> None:
    """What it left is collected, although no other sandbox becomes free for it before the wall time ends."""

    def die(_: str) -> Observation:
        pool.sandboxes[0].files |= {"output/a.csv": b"1,2", "scratch": b"3"}
        return DEAD

    class Slow(FakePool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            if self.sandboxes:
                await asyncio.Event().wait()
            async with super().acquire(spec) as sandbox:
                yield sandbox

    pool = Slow(lambda n: die)
    outcome, _, _ = await run(tmp_path, CELL, pool=pool, wall_s=0.3)
    assert outcome.stop_reason is StopReason.TIME_LIMIT
    (artifact,) = outcome.artifacts
    assert (artifact.path, artifact.bytes) == ("artifacts/s/1/output/a.csv", 3)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == [
        "output/a.csv"
    ]
    assert not list(tmp_path.rglob(".carried"))


class Small(FakeSandbox):
    """Holds 10 bytes of files."""

    async def put(self, path: str, data: bytes | Path) -> None:
        n_bytes = len(data) if isinstance(data, bytes) else data.stat().st_size
        if sum(map(len, self.files.values())) + n_bytes > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        await super().put(path, data)


async def test_dead_kernel_may_have_left_more_than_fits(tmp_path: Path) -> None:
    """A disk that the code has filled in the place of an input is no fault of ours; the rest is carried."""

    def die(_: str) -> Observation:
        del pool.sandboxes[0].files["data/a.csv"]
        pool.sandboxes[0].files["filler"] = b"12345678"
        return DEAD

    class SmallPool(FakePool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            sandbox = Small([OK] if self.sandboxes else die)
            self.sandboxes.append(sandbox)
            yield sandbox

    pool = SmallPool()
    files = (SampleFile("data/a.csv", lambda: b"12345"),)
    outcome, _, _ = await run(tmp_path, CELL, CELL, "done", pool=pool, asked=sample("s", files=files))

    assert (outcome.stop_reason, outcome.error) == (StopReason.ANSWER, None)
    assert pool.sandboxes[1].files == {"filler": b"12345678"}


async def test_every_kernel_is_made_as_the_sample_asks(tmp_path: Path) -> None:
    """The first sandbox and the one after a death have the same profile, seed, setup cell and workspace."""
    died = Observation(Status.DIED, kernel_alive=False)
    asked = sample("s", profile="upstream", setup="import a", workspace=tmp_path)
    pool = FakePool(lambda n: [died] if n == 0 else [OK])
    await run(tmp_path / "out", CELL, CELL, "done", pool=pool, asked=asked)

    spec = SandboxSpec(profile="upstream", seed=7, setup="import a", workspace=tmp_path)
    assert pool.specs == [spec, spec]
    assert [sandbox.executed for sandbox in pool.sandboxes] == [["x"], ["x"]], "the setup cell is the pool's"


async def test_sample_that_asks_for_nothing_gets_a_seed(tmp_path: Path) -> None:
    """What is random is settled for every attempt; all else is the config's."""
    _, pool, _ = await run(tmp_path, CELL, "done")
    assert pool.specs == [SandboxSpec(seed=7)]


async def test_failed_setup_cell_is_ours_and_stays(tmp_path: Path) -> None:
    """It names the sample and what failed, is not held against the model, and is not worth another try."""
    pool = FakePool(start_error=SandboxSetupError("Traceback ...\nNameError: a"))
    outcome, _, _ = await run(tmp_path, CELL, pool=pool)

    assert (outcome.stop_reason, outcome.owner) == (StopReason.SANDBOX_ERROR, Owner.SANDBOX)
    assert (outcome.error or "").startswith(
        "the setup cell of sample s failed; correct it and begin a new run"
    )
    assert (outcome.error or "").endswith("NameError: a")
    assert outcome.would_repeat


async def test_failed_start_may_go_better(tmp_path: Path) -> None:
    """Another kind of sandbox error is worth another try."""
    outcome, _, _ = await run(tmp_path, CELL, pool=FakePool(start_error=SandboxStartError("no")))
    assert not outcome.would_repeat


async def test_what_setup_put_in_the_way_of_carried_files_stays(tmp_path: Path) -> None:
    """A file that lies where a fresh sandbox has something else already does not end the attempt."""
    died = Observation(Status.DIED, kernel_alive=False)

    class Occupied(FakePool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            async with super().acquire(spec) as sandbox:
                sandbox.files["workspace"] = b""  # nothing can be put below a file, as below a link
                yield sandbox

    def script(n: int) -> Any:
        def die(_: str) -> Observation:
            del pool.sandboxes[0].files["workspace"]
            pool.sandboxes[0].files |= {"workspace/x": b"1", "z": b"2"}
            return died

        return die if n == 0 else [OK]

    pool = Occupied(script)
    outcome, _, _ = await run(tmp_path, CELL, CELL, "done", pool=pool)

    assert (outcome.stop_reason, outcome.error) == (StopReason.ANSWER, None)
    assert pool.sandboxes[1].files == {"workspace": b"", "z": b"2"}


@pytest.mark.parametrize("peak", [None, 123_456_789])
async def test_peak_memory_is_recorded_where_it_is_known(tmp_path: Path, peak: int | None) -> None:
    """A turn's observation says how much memory the sandbox has held, or says nothing about it."""
    seen = Observation(Status.OK, peak_memory_bytes=peak)
    outcome, _, _ = await run(tmp_path, CELL, "done", script=lambda n: [seen])

    assert outcome.turns[0].observation is not None
    assert outcome.turns[0].observation.get("peak_memory_bytes") == peak
    assert ("peak_memory_bytes" in outcome.turns[0].observation) == (peak is not None)


async def test_failures_of_the_server_do_not_count_as_time(tmp_path: Path) -> None:
    """What a call lost to the server's failures is not held against the trajectory; its own time is."""

    class FailingServer(ListModel):
        async def complete(self, request: ModelRequest) -> Completion:
            if request.n_turns_done == 1:
                await asyncio.Event().wait()
            request.clock.excuse(0.4)
            await asyncio.sleep(0.4)
            return await super().complete(request)

    model = FailingServer(CELL)
    outcome = await rollout(settings(model, FakePool(), working_s=0.3), sample("s"), tmp_path).run()

    assert (outcome.stop_reason, len(outcome.turns)) == (StopReason.TIME_LIMIT, 1)


async def test_repeated_action_ends_it(tmp_path: Path) -> None:
    """The same code once too often in a row is a loop; it is not executed again."""
    outcome, pool, _ = await run(tmp_path, CELL, max_repeated_actions=3)
    assert (outcome.stop_reason, outcome.owner) == (StopReason.REPEATED_ACTION, Owner.MODEL)
    assert pool.sandboxes[0].executed == ["x", "x"]
    assert [turn.action for turn in outcome.turns] == ["x", "x", "x"]
    assert outcome.turns[-1].observation is None


async def test_cached_reply_costs_the_trajectory_and_not_the_run(tmp_path: Path) -> None:
    """A trajectory ends as it did the first time; the run spends nothing on it, and asks nobody for tokens."""
    replies = [
        Completion("```python\n1\n```", usage=Usage(1000, 500, 1500), is_cached=n > 0) for n in range(3)
    ]
    settings = rollout_settings(ListModel(*replies), prices=Prices(prompt=1.0, completion=2.0), max_turns=3)
    outcome = await rollout(settings, sample(), tmp_path).run()

    assert outcome.usage.cost == pytest.approx(0.006)
    assert (settings.meter.n_turns, settings.meter.usage.total_tokens) == (3, 1500)
    assert settings.meter.usage.cost == pytest.approx(0.002)


async def test_cost_ends_it(tmp_path: Path) -> None:
    """Tokens cost what the config says; the limit is met after the turn that goes over it."""
    model = ListModel(Completion(CELL, "stop", usage=Usage(1000, 500, 1500)))
    prices = Prices(prompt=1.0, completion=2.0)
    one = rollout(rollout_settings(model, FakePool(), prices=prices, max_cost=0.005), sample(), tmp_path)
    outcome = await one.run()
    assert (outcome.stop_reason, len(outcome.turns)) == (StopReason.COST_LIMIT, 3)
    assert outcome.usage.cost == pytest.approx(0.006)
    assert outcome.turns[0].usage.cost == pytest.approx(0.002)


async def test_waits_count_as_wall_time_and_not_as_working_time(tmp_path: Path) -> None:
    """A call that waits for its slot does not use up the working time; the wall time is met all the same."""

    class Queueing(ListModel):
        async def complete(self, request: ModelRequest) -> Completion:
            with request.clock.waiting():
                await asyncio.sleep(0.5)
            return await super().complete(request)

    outcome = await rollout(settings(Queueing("42"), FakePool(), working_s=0.4), sample(), tmp_path).run()
    assert outcome.stop_reason is StopReason.ANSWER
    assert outcome.timings.call_wait_s >= 0.49
    assert outcome.timings.model_s < 0.49
    outcome = await rollout(settings(Queueing("42"), FakePool(), wall_s=0.1), sample(), tmp_path).run()
    assert (outcome.stop_reason, outcome.owner) == (StopReason.TIME_LIMIT, Owner.ENGINE)


async def test_wall_time_that_ends_in_our_queue_is_ours(tmp_path: Path) -> None:
    """Who got no sandbox had no chance; who used the time itself has to answer for it."""
    busy = settings(ListModel(CELL), FakePool(), wall_s=0.3)
    await busy.sandboxes.gate.acquire()
    busy.sandboxes.gate.limit = 1
    outcome = await rollout(busy, sample(), tmp_path).run()
    assert (outcome.stop_reason, outcome.owner) == (StopReason.TIME_LIMIT, Owner.SANDBOX)
    assert "of the 0.3 s of limits.wall_s" in (outcome.error or "")

    async def slow(_: str) -> Observation:
        await asyncio.sleep(0.2)
        return OK

    outcome, _, _ = await run(tmp_path, CELL, pool=FakePool(lambda n: slow), wall_s=0.3)
    assert (outcome.stop_reason, outcome.owner) == (StopReason.TIME_LIMIT, Owner.MODEL)


async def test_several_calls_in_one_reply(tmp_path: Path) -> None:
    """They are executed in order, each is answered under its id, and the turn holds them all."""

    def call(call_id: str, arguments: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": "python", "arguments": arguments}}

    calls = [call("a", '{"code": "one"}'), call("b", "oops"), call("c", '{"code": "two"}')]
    model = ListModel(Completion("", "tool_calls", tool_calls=calls), "done")
    pool = FakePool(lambda n: lambda code: Observation(Status.OK, (Stream("stdout", code),)))
    protocol = ToolCall(None)
    outcome = await rollout(rollout_settings(model, pool, protocol=protocol), sample(), tmp_path).run()

    assert pool.sandboxes[0].executed == ["one", "two"]
    answers = [
        (m["tool_call_id"], m["content"]) for m in outcome.conversation.messages if m["role"] == "tool"
    ]
    assert [answers[0], answers[2]] == [("a", "one"), ("c", "two")]
    assert answers[1][0] == "b"
    assert "not JSON" in answers[1][1]
    first = outcome.turns[0]
    assert (first.action, [further.action for further in first.further]) == ("one", ["two"])
    assert first.further[0].observation is not None
    assert first.further[0].observation["outputs"][0]["text"] == "two"


@pytest.mark.parametrize("send", [False, True])
async def test_reasoning_is_kept_and_sent_back_only_on_request(tmp_path: Path, send: bool) -> None:
    """The turn has it either way."""
    model = ListModel(Completion(CELL, "stop", reasoning="hm"), "done")
    one = rollout(rollout_settings(model, FakePool(), send_reasoning=send), sample(), tmp_path)
    outcome = await one.run()
    assert outcome.turns[0].reasoning == "hm"
    assert ("reasoning_content" in model.seen[1][1]) is send


async def test_seed_of_a_turn_is_its_own(tmp_path: Path) -> None:
    """Each turn has another seed, the same when it is asked for again."""
    seeds: list[int | None] = []

    class Noting(ListModel):
        async def complete(self, request: ModelRequest) -> Completion:
            seeds.append(request.seed)
            return await super().complete(request)

    for _ in range(2):
        await rollout(settings(Noting(CELL, CELL, "done"), FakePool()), sample(), tmp_path).run()
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert seeds[0] == 7


async def test_time_that_ends_as_a_wait_begins(tmp_path: Path) -> None:
    """A deadline that has just passed is met, not moved, when the client begins to wait."""

    class Late(ListModel):
        async def complete(self, request: ModelRequest) -> Completion:
            time.sleep(0.15)  # noqa: ASYNC251 - a loop that is held
            await asyncio.sleep(0)
            with request.clock.waiting():
                await asyncio.sleep(0.05)
            return await super().complete(request)

    outcome = await rollout(settings(Late("42"), FakePool(), working_s=0.1), sample(), tmp_path).run()
    assert outcome.stop_reason is StopReason.TIME_LIMIT
