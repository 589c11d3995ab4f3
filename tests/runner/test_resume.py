"""What a resume may change, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from runner.batch import prepare
from runner.config import RunConfig, load_config
from runner.errors import JournalError, RunMismatch
from runner.resume import check_same_run, config_hash, hashable_settings


def hash_of(overrides: dict[str, Any]) -> str:
    return config_hash(hashable_settings(load_config(None, overrides)))


@pytest.mark.parametrize(
    "overrides",
    [
        {"concurrency": 3},
        {"run_dir": "x"},
        {"model.headers": {"a": "b"}},
        {"sandbox.max_sandboxes": 3},
        {"epochs": 4},
        {"limit": 2},
    ],
)
def test_operational_keys_do_not_change_the_hash(overrides: dict[str, Any]) -> None:
    """A resume may change how fast or how much is run."""
    assert hash_of({}) == hash_of(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.request": {"temperature": 1}},
        {"limits.max_turns": 3},
        {"benchmark": "pybench"},
        {"model.client": "nop"},
        {"sandbox.memory_bytes": 2**30},
        {"protocol.kind": "execute_tag"},
    ],
)
def test_what_changes_results_changes_the_hash(overrides: dict[str, Any]) -> None:
    """A resume may not change what a trajectory is."""
    assert hash_of({}) != hash_of(overrides)


def test_address_of_the_server_does_not_change_the_hash() -> None:
    """The same model behind another address gives the same results."""
    one = hash_of({"model.client": "openai:http://a/v1"})
    assert one == hash_of({"model.client": "openai:http://b/v1"})


def begun(run_dir: Path, **settings: Any) -> None:
    """Write the config.json of a run that has begun with these settings."""
    record = prepare(RunConfig.model_validate(settings)).record({})
    (run_dir / "config.json").write_bytes(orjson.dumps(record.as_json(run_dir)))


def test_same_settings_go_on(tmp_path: Path) -> None:
    """A run may be continued as it was begun, and keeps its id and the time of its beginning."""
    begun(tmp_path, limit=2)
    record = prepare(RunConfig(limit=5, concurrency=2)).record({})
    check_same_run(tmp_path, record)

    before = orjson.loads((tmp_path / "config.json").read_bytes())
    again = record.as_json(tmp_path)
    assert (before["run_id"], before["created_at"]) == (again["run_id"], again["created_at"])


def test_each_differing_key_is_named_with_both_values(tmp_path: Path) -> None:
    """The refusal says what was there and what is asked now."""
    begun(tmp_path)
    other = {"limits": {"max_turns": 3}, "protocol": "execute_tag"}
    with pytest.raises(RunMismatch) as refused:
        check_same_run(tmp_path, prepare(RunConfig.model_validate(other)).record({}))

    assert "limits.max_turns: 10 there, 3 now" in str(refused.value)
    assert "protocol.kind: 'fenced' there, 'execute_tag' now" in str(refused.value)


def test_name_that_no_server_was_asked_for_does_not_count(tmp_path: Path) -> None:
    """A run with nothing left to do, or a dry run, needs no server to be found the same."""
    model = {"client": "openai:http://localhost:9/v1", "name": "m"}
    begun(tmp_path, model=model)
    check_same_run(tmp_path, prepare(RunConfig.model_validate({"model": model | {"name": None}})).record({}))


def test_trajectories_without_a_config_are_somebody_elses(tmp_path: Path) -> None:
    """A folder that holds lines but no config of ours is not written to."""
    (tmp_path / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(JournalError, match=r"holds trajectories\.jsonl but no config\.json"):
        check_same_run(tmp_path, prepare(RunConfig()).record({}))
