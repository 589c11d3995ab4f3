"""Preparing a run: names, and what is checked before anything is touched."""

from __future__ import annotations

import pytest

from bench_data import load
from runner.batch import default_run_dir, prepare
from runner.config import RunConfig
from runner.errors import ConfigError


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
