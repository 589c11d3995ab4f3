"""What a resume may change, and what it may not."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest

from runner.batch import prepare
from runner.config import RunConfig, load_config
from runner.errors import JournalError, RunMismatch
from runner.resume import OPERATIONAL, check_same_run, config_hash, hashable_settings
from sandbox_pool import PoolConfig


def hash_of(overrides: dict[str, Any]) -> str:
    return config_hash(hashable_settings(load_config(None, overrides)))


@pytest.mark.parametrize(
    "overrides",
    [
        {"concurrency": 3},
        {"run_dir": "x"},
        {"model.headers": {"a": "b"}},
        {"sandbox.max_sandboxes": 3},
        {"sandbox.max_idle": 3},
        {"sandbox.recycle_after": 3},
        {"sandbox.zygote_timeout_s": 3},
        {"sandbox.uid": 12345},
        {"sandbox.allow_unsafe": True},
        {"sandbox.profiles": {"unused": {"kernel": "ipykernel"}}},
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
        {"sandbox.disk_bytes": 2**20},
        {"sandbox.network": "host"},
        {"sandbox.kernel": "ipykernel"},
        {"sandbox.tier": "process"},
        {"sandbox.preload": ["numpy"]},
        {"sandbox.profiles": {"p": {"network": "host"}}, "sandbox.profile": "p"},
        {"protocol.kind": "execute_tag"},
    ],
)
def test_what_changes_results_changes_the_hash(overrides: dict[str, Any]) -> None:
    """A resume may not change what a trajectory is."""
    assert hash_of({}) != hash_of(overrides)


def test_every_key_of_the_pool_is_operational_or_compared() -> None:
    """No operational key is misspelt: each is one that the config has."""
    names = {f"sandbox.{name}" for name in PoolConfig.model_fields}
    assert {key for key in OPERATIONAL if key.startswith("sandbox.")} <= names


def test_profiles_that_samples_name_are_compared() -> None:
    """A key of such a profile counts as the same key of the default does; a profile that none names does not."""

    def settings_with(profile: dict[str, Any]) -> dict[str, Any]:
        config = load_config(None, {"sandbox.profiles": {"up.stream": profile}})
        return hashable_settings(config, {"up.stream"})

    slow, fast = settings_with({"cpu_s": 900, "python": "a"}), settings_with({"cpu_s": 900, "python": "b"})
    assert slow == fast
    assert slow["sandbox.profiles.up.stream.cpu_s"] == 900
    assert settings_with({"cpu_s": 1}) != slow


@pytest.mark.parametrize("named", [True, False])
def test_another_limit_of_a_profile_is_refused_where_samples_name_it(tmp_path: Path, named: bool) -> None:
    """A profile counts from the first sample that asks for it."""
    task = {"id": "a", "messages": [{"role": "user", "content": "x"}]} | ({"profile": "p"} if named else {})
    (tmp_path / "t.jsonl").write_text(orjson.dumps(task).decode())
    settings: dict[str, Any] = {"benchmark": f"jsonl:{tmp_path}/t.jsonl", "model": "nop"}
    begun(tmp_path, **settings, sandbox={"profiles": {"p": {"cpu_s": 60}}})
    now = RunConfig.model_validate(settings | {"sandbox": {"profiles": {"p": {"cpu_s": 90}}}})
    refusal = pytest.raises(RunMismatch, match=r"sandbox\.profiles\.p\.cpu_s: 60 there, 90 now")

    with refusal if named else nullcontext():
        check_same_run(tmp_path, prepare(now).record({}))


def test_address_of_the_server_does_not_change_the_hash() -> None:
    """The same model behind another address gives the same results."""
    one = hash_of({"model.client": "openai:http://a/v1"})
    assert one == hash_of({"model.client": "openai:http://b/v1"})


def begun(run_dir: Path, **settings: Any) -> None:
    """Write the config.json of a run that has begun with these settings."""
    record = prepare(RunConfig.model_validate(settings)).record({})
    (run_dir / "config.json").write_bytes(orjson.dumps(record.as_json(run_dir)))


def test_another_profile_is_refused_by_what_it_changes(tmp_path: Path) -> None:
    """The message names what a trajectory would have otherwise: values that the profile decides included."""
    begun(tmp_path, limit=2)
    with pytest.raises(RunMismatch) as refused:
        check_same_run(tmp_path, prepare(RunConfig(limit=2, profile="upstream")).record({}))

    message = str(refused.value)
    assert "protocol.truncation: [8000, 8000] there, 'off' now" in message
    assert "protocol.merge_user_messages: True there, False now" in message
    assert "sandbox.kernel: 'lean' there, 'ipykernel' now" in message


def test_default_written_out_goes_on(tmp_path: Path) -> None:
    """What is compared is what a setting comes to, not how it was written."""
    begun(tmp_path, limit=2)
    protocol = {"truncation": {"head_chars": 8000, "tail_chars": 8000}, "merge_user_messages": True}
    written_out = RunConfig.model_validate({"limit": 2, "protocol": protocol})
    check_same_run(tmp_path, prepare(written_out).record({}))


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


LATER = ("profile", "prompt.", "engines.", "protocol.code_", "protocol.tool_call_token")


def begun_by_version_before_profiles(run_dir: Path, **settings: Any) -> None:
    """Write the config.json of a run as it was before there were profiles, prompt files and hosted engines."""
    begun(run_dir, **settings)
    config = orjson.loads((run_dir / "config.json").read_bytes())
    config["settings"] = {k: v for k, v in config["settings"].items() if not k.startswith(LATER)}
    if "truncation" not in settings.get("protocol", {}):
        config["settings"]["protocol.truncation"] = "default"
    (run_dir / "config.json").write_bytes(orjson.dumps(config))


def rewrite(run_dir: Path, **changes: Any) -> None:
    """Change settings in a config.json; `gone` takes one away."""
    config = orjson.loads((run_dir / "config.json").read_bytes())
    changed = config["settings"] | {key.replace("__", "."): value for key, value in changes.items()}
    config["settings"] = {key: value for key, value in changed.items() if value != "gone"}
    (run_dir / "config.json").write_bytes(orjson.dumps(config))


@pytest.mark.parametrize("kind", ["execute_tag", "tool_call"])
def test_run_of_an_earlier_version_goes_on(tmp_path: Path, kind: str) -> None:
    """A key that came later has the value that the earlier version worked by."""
    begun_by_version_before_profiles(tmp_path, protocol={"kind": kind})
    check_same_run(tmp_path, prepare(RunConfig.model_validate({"protocol": {"kind": kind}})).record({}))


def test_truncation_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """It was recorded as two keys."""
    protocol = {"kind": "execute_tag", "truncation": {"head_chars": 5, "tail_chars": 6}}
    begun_by_version_before_profiles(tmp_path, protocol=protocol)
    written = {"protocol__truncation.head_chars": 5, "protocol__truncation.tail_chars": 6}
    rewrite(tmp_path, protocol__truncation="gone", **written)
    check_same_run(tmp_path, prepare(RunConfig.model_validate({"protocol": protocol})).record({}))


def test_own_prompt_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    """That of `fenced` has changed since: going on would mix two prompts."""
    begun_by_version_before_profiles(tmp_path)
    with pytest.raises(RunMismatch) as refused:
        check_same_run(tmp_path, prepare(RunConfig()).record({}))
    differing = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert len(differing) == 1
    assert "prompt.sha256: 'e6ed9648" in differing[0]


def test_given_prompt_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its text was recorded, and so was an empty one."""
    for prompt in ("Write code.", ""):
        settings = {"protocol": {"system_prompt": prompt}}
        begun_by_version_before_profiles(tmp_path, **settings)
        check_same_run(tmp_path, prepare(RunConfig.model_validate(settings)).record({}))


def test_later_key_that_is_set_is_refused(tmp_path: Path) -> None:
    """What an earlier version could not do is another configuration."""
    begun_by_version_before_profiles(tmp_path, protocol={"kind": "execute_tag"})
    now = {"protocol": {"kind": "execute_tag"}, "profile": "upstream"}
    with pytest.raises(RunMismatch, match=r"profile: 'default' there, 'upstream' now"):
        check_same_run(tmp_path, prepare(RunConfig.model_validate(now)).record({}))


def test_run_from_before_seeds_were_sent(tmp_path: Path) -> None:
    """Its limit of time has another name now; the same seeds cannot be had, unless none are sent."""
    begun_by_version_before_profiles(tmp_path, protocol={"kind": "execute_tag"})
    gone = ("model__send_seed", "model__send_reasoning", "limits__working_s", "limits__wall_s")
    rewrite(tmp_path, limits__time_s=1800.0, **dict.fromkeys(gone, "gone"))
    settings = {"protocol": {"kind": "execute_tag"}}
    with pytest.raises(RunMismatch, match=r"model\.send_seed: False there, True now"):
        check_same_run(tmp_path, prepare(RunConfig.model_validate(settings)).record({}))
    silent = RunConfig.model_validate(settings | {"model": {"send_seed": False}})
    check_same_run(tmp_path, prepare(silent).record({}))


def test_name_that_no_server_was_asked_for_does_not_count(tmp_path: Path) -> None:
    """A run with nothing left to do, or a dry run, needs no server to be found the same."""
    model = {"client": "openai:http://localhost:9/v1", "name": "m"}
    begun(tmp_path, model=model)
    check_same_run(tmp_path, prepare(RunConfig.model_validate({"model": model | {"name": None}})).record({}))


@pytest.mark.parametrize(
    ("settings", "capabilities", "refused"),
    [
        ({}, {"tier": "namespace"}, False),
        ({}, {"tier": "landlock"}, True),
        ({"tier": "namespace"}, {"tier": "namespace"}, False),
        ({}, {}, False),
        ({"tier": "namespace"}, {}, False),
        ({"tier": "process", "allow_unsafe": True}, {}, True),
    ],
)
def test_run_is_not_continued_behind_lower_walls(
    tmp_path: Path, settings: dict[str, Any], capabilities: dict[str, Any], refused: bool
) -> None:
    """The tier that was taken is compared, however it was asked for; a dry run with `auto` cannot know it."""
    first = prepare(RunConfig()).record({"tier": "namespace"})
    (tmp_path / "config.json").write_bytes(orjson.dumps(first.as_json(tmp_path)))
    record = prepare(RunConfig.model_validate({"sandbox": settings})).record(capabilities)

    with pytest.raises(RunMismatch, match=r"sandbox\.tier: 'namespace' there") if refused else nullcontext():
        check_same_run(tmp_path, record)


def test_trajectories_without_a_config_are_somebody_elses(tmp_path: Path) -> None:
    """A folder that holds lines but no config of ours is not written to."""
    (tmp_path / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(JournalError, match=r"holds trajectories\.jsonl but no config\.json"):
        check_same_run(tmp_path, prepare(RunConfig()).record({}))
