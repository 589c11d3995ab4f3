"""Preparing a run: names, and what is checked before anything is touched."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench_data import load
from runner.batch import Watching, prepare, run_batch, sandbox_settings
from runner.batch.driver import identity_of
from runner.batch.run import sandbox_line
from runner.batch.settings import default_run_dir, enough_sandboxes
from runner.config import RunConfig
from runner.control import MAX_CONCURRENCY
from runner.encoding import encode_line
from runner.errors import ConfigError
from runner.journal import TRAJECTORIES, Journal, read_config, read_trajectories
from runner.journal.lock import take_lock
from runner.protocols.base import TextLimits
from sandbox_pool import FakePool, PoolConfig
from sandbox_pool.config import MIB
from tests.runner.factories import trajectory


@pytest.mark.parametrize(
    ("benchmark", "client", "end"),
    [
        ("quickstart", "oracle", "quickstart-oracle"),
        ("pybench", "openai:http://host:8000/v1", "pybench-openai"),
        ("jsonl:some/where/my tasks.jsonl", "replay:runs/x/trajectories.jsonl", "my-tasks-replay"),
    ],
)
def test_default_folder_is_named_for_what_is_run(benchmark: str, client: str, end: str) -> None:
    """A run without --run-dir gets a folder that can be told from others."""
    config = RunConfig.model_validate({"benchmark": benchmark, "model": client})
    folder = default_run_dir(config)

    assert folder.parts[0] == "runs"
    assert folder.name.endswith(f"-{end}")


def test_default_folder_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin within a second do not go on with one another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "now")
    names = []
    for _ in range(3):
        path = default_run_dir(RunConfig())
        path.mkdir(parents=True)
        names.append(path.name)
    assert names == ["now-quickstart-oracle", "now-quickstart-oracle-2", "now-quickstart-oracle-3"]


def test_oracle_needs_reference_solutions(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A scripted model is refused before the run when a sample has no script for it."""
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    path.write_text('{"id": "a", "messages": [{"role": "user", "content": "x"}]}\n')
    with pytest.raises(ConfigError, match="sample a has no reference solution"):
        prepare(RunConfig.model_validate({"benchmark": f"jsonl:{path}"}))


def test_plain_run_is_quickstart_with_the_oracle() -> None:
    """Without any setting all of quickstart is prepared."""
    batch = prepare(RunConfig())
    assert batch.n_attempts == len(load("quickstart").samples)
    assert (batch.model.name, batch.protocol.name) == ("oracle", "fenced")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"concurrency": 40, "sandbox": {"max_sandboxes": 3}}, 3),
        ({"concurrency": 1}, MAX_CONCURRENCY),
        ({"concurrency": 100_000}, 100_000),
    ],
)
def test_there_are_sandboxes_for_all_in_flight(settings: dict[str, Any], expected: int) -> None:
    """Nobody waits for a sandbox by default, however many `ctl set concurrency` asks for later.

    Who sets a number gets that number. The pool knows what fits.
    """
    assert enough_sandboxes(RunConfig.model_validate(settings)).max_sandboxes == expected


def test_lines_are_read_only_where_there_are_enough(tmp_path: Path) -> None:
    """Whoever holds the journal reads all of them: before that, one that is long is only counted."""
    batch = prepare(RunConfig(limit=2, run_dir=tmp_path))
    assert not batch.is_done()

    journal = tmp_path / TRAJECTORIES
    journal.write_text("never read\n")
    assert not batch.is_done()

    rows = [trajectory(name) for name in batch.samples.ids]
    journal.write_bytes(b"".join(encode_line(row) for row in [*rows[:1], *rows[:1]]))
    assert not batch.is_done()

    journal.write_bytes(b"".join(encode_line(row) for row in rows))
    assert batch.is_done()


@pytest.mark.parametrize(
    ("settings", "kernel", "max_text_bytes"),
    [
        ({}, "lean", 64 * 1024),
        ({"profile": "upstream"}, "ipykernel", 16 * MIB),
        ({"profile": "upstream", "sandbox": {"kernel": "lean"}}, "lean", 16 * MIB),
        ({"profile": "upstream", "sandbox": {"max_text_bytes": 9}}, "ipykernel", 9),
        ({"profile": "upstream", "sandbox": {"max_output_bytes": MIB}}, "ipykernel", MIB),
    ],
)
def test_upstream_has_its_kernel_and_whole_outputs(
    settings: dict[str, Any], kernel: str, max_text_bytes: int
) -> None:
    """What the pool keeps of a cell's text is no cap on observations then; a setting wins."""
    pool = sandbox_settings(RunConfig.model_validate(settings))
    assert (pool.kernel, pool.max_text_bytes) == (kernel, max_text_bytes)


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({}, TextLimits(8000, 8000)),
        ({"profile": "upstream"}, None),
        ({"profile": "upstream", "protocol": {"truncation": {"head_chars": 1, "tail_chars": 2}}}, TextLimits(1, 2)),
        ({"protocol": {"truncation": "off"}}, None),
    ],
)  # fmt: skip
def test_profile_decides_how_much_of_an_observation_is_shown(
    settings: dict[str, Any], limits: TextLimits | None
) -> None:
    """Upstream shortens nothing, we show head and tail; a setting wins."""
    assert prepare(RunConfig.model_validate(settings)).protocol.limits == limits


def task_file(folder: Path, *rows: dict[str, Any]) -> str:
    """Write a benchmark; return its name."""
    asked = {"messages": [{"role": "user", "content": "x"}]}
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(asked | row) + "\n" for row in rows))
    return f"jsonl:{path}"


def test_unknown_profile_of_a_sample_is_refused(tmp_path: Path) -> None:
    """Before any work, with the first sample that names it and the profiles that there are."""
    rows = [{"id": "a"}, {"id": "b", "profile": "upsteam"}, {"id": "c", "profile": "upsteam"}]
    config = {
        "benchmark": task_file(tmp_path, *rows),
        "model": "nop",
        "sandbox": {"profiles": {"upstream": {"kernel": "ipykernel"}}},
    }
    with pytest.raises(
        ConfigError, match=r"sample b: no sandbox profile 'upsteam': known are default, upstream"
    ):
        prepare(RunConfig.model_validate(config))
    # Samples that are not run need none.
    assert prepare(RunConfig.model_validate(config | {"samples": "a"})).n_attempts == 1


def test_known_profiles_are_taken(tmp_path: Path) -> None:
    """The config's own name for its plain keys is a profile too; each is known with its kernel."""
    rows = [{"id": "a", "profile": "default"}, {"id": "b", "profile": "upstream"}, {"id": "c"}]
    config = {
        "benchmark": task_file(tmp_path, *rows),
        "model": "nop",
        "sandbox": {"profiles": {"upstream": {"kernel": "ipykernel"}, "unused": {}}},
    }
    batch = prepare(RunConfig.model_validate(config))
    identity = identity_of(batch, batch.record({"tier": "namespace", "kernel": "lean"}), "r")

    assert batch.samples.profiles == {"default": "a", "upstream": "b"}
    assert identity.kernels == {"default": "lean", "upstream": "ipykernel"}
    assert [identity.kernel_of(sample.profile) for sample in batch.samples] == ["lean", "ipykernel", "lean"]
    assert identity.tier == "namespace"


@pytest.mark.parametrize(
    ("settings", "trusted"),
    [
        ({}, True),
        ({"model": "decoy"}, True),
        ({"model": "nop"}, True),
        ({"model": {"client": "openai:http://localhost:9/v1"}}, False),
        ({"benchmark": "jsonl:t.jsonl"}, False),
    ],
)
def test_only_the_demos_own_code_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], trusted: bool
) -> None:
    """A model's code is not ours, nor is that of the user's own tasks."""
    monkeypatch.chdir(tmp_path)
    solution = {"cells": ["1"], "answer": "1"}
    task_file(tmp_path, {"id": "a", "reference": solution})
    assert prepare(RunConfig.model_validate(settings)).trusted_code is trusted


@pytest.mark.parametrize("own_tasks", [False, True])
async def test_pool_is_told_whose_code_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tasks: bool
) -> None:
    """The pool may take a tier without promises for the demo alone; the run's record says which runs may."""
    pools: list[FakePool] = []

    def open_pool(config: PoolConfig, *, trusted_code: bool) -> FakePool:
        assert trusted_code is not own_tasks
        pools.append(FakePool())
        return pools[-1]

    monkeypatch.setattr("runner.batch.run.SandboxPool", open_pool)
    settings: dict[str, Any] = {"run_dir": tmp_path / "r", "limit": 1}
    if own_tasks:
        row = {"id": "a", "reference": {"cells": ["1"], "answer": "1"}, "setup": "2"}
        settings["benchmark"] = task_file(tmp_path, row)
    console = Console(file=io.StringIO())
    summary = await run_batch(prepare(RunConfig.model_validate(settings)), Watching(console))

    assert (summary.statistics.n_finished, summary.statistics.n_failed) == (1, 0)
    (pool,) = pools
    (spec,) = pool.specs
    assert spec.setup == ("2" if own_tasks else None)
    (row,) = read_trajectories(tmp_path / "r")
    assert (row["seed"], row["tier"], row["kernel"]) == (spec.seed, "none", "fake")
    assert read_config(tmp_path / "r")["trusted_code"] is not own_tasks
    assert "sandboxes: tier none, kernel fake" in console.file.getvalue()  # type: ignore[attr-defined]


async def test_loop_is_free_while_a_journal_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may run on it; whoever cancels the run meanwhile finds its directory let go."""
    is_reading, may_read = threading.Event(), threading.Event()

    def take_slowly(run_dir: Path) -> int:
        is_reading.set()
        assert may_read.wait(30), "the loop is held"
        return take_lock(run_dir)

    monkeypatch.setattr("runner.batch.run.SandboxPool", lambda config, trusted_code: FakePool())
    monkeypatch.setattr("runner.journal.writer.take_lock", take_slowly)
    batch = prepare(RunConfig(run_dir=tmp_path / "r", limit=1, progress="quiet"))
    running = asyncio.create_task(run_batch(batch, Watching(Console(), handles_signals=False)))
    await asyncio.to_thread(is_reading.wait)
    running.cancel()
    await asyncio.sleep(0)
    may_read.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    with Journal(tmp_path / "r") as journal:
        assert journal.done == set()


def test_line_says_how_code_is_held() -> None:
    """The tier that was taken comes first."""
    line = sandbox_line({"tier": "landlock", "kernel": "lean", "limits": {}})
    assert line == "sandboxes: tier landlock, kernel lean"
