"""Preparing a run: names, and what is checked before anything is touched."""

from __future__ import annotations

from typing import Any

import pytest

from bench_data import load
from runner.batch import default_run_dir, enough_sandboxes, prepare
from runner.config import RunConfig
from runner.errors import ConfigError
from sandbox_pool import PoolConfig


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
        ({"concurrency": 40}, 40),
        ({"concurrency": 40, "sandbox": {"max_sandboxes": 3}}, 3),
        ({"concurrency": 1}, PoolConfig().max_sandboxes),
    ],
)
def test_there_are_sandboxes_for_all_in_flight(settings: dict[str, Any], expected: int) -> None:
    """Nobody waits for a sandbox by default; who sets a number gets that number."""
    assert enough_sandboxes(RunConfig.model_validate(settings)).max_sandboxes == expected


def test_more_than_memory_holds_are_not_promised() -> None:
    """A concurrency beyond all memory does not start kernels until the machine dies."""
    assert enough_sandboxes(RunConfig(concurrency=1_000_000)).max_sandboxes < 100_000
