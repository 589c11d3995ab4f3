"""The config is checked whole before any work is done, and every refusal names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.config import load_config, parse_setting, public_config
from runner.errors import ConfigError
from runner.resume import hashable_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_defaults_are_the_demo() -> None:
    """Without anything, it is quickstart with the oracle."""
    config = load_config(None, {})
    assert (config.benchmark, config.model.client) == ("quickstart", "oracle")


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    """`1e-5` is a number, `no` is a word, as in the request body."""
    path = write(tmp_path, "model:\n  request: {min_p: 1e-5, user: no, seed: 0o17}\n")
    assert load_config(path, {}).model.request == {"min_p": 1e-5, "user": "no", "seed": 15}


def test_secrets_are_not_recorded() -> None:
    """Neither a header's value nor a password in a server's address enters the run directory."""
    model = {
        "client": "openai:https://user:s3cret@a/v1, http://s3cret@b:80/v1,http://c/v1/x@y",
        "headers": {"x-api-key": "s3cret"},
        "request": {"top_p": 1, "extra_headers": {"api-key": "s3cret"}},
    }
    config = load_config(None, {"model": model})
    public = public_config(config)
    assert public["model"]["client"] == "openai:https://a/v1, http://b:80/v1,http://c/v1/x@y"
    assert public["model"]["request"] == {"top_p": 1, "extra_headers": {"api-key": "(not recorded)"}}
    assert "s3cret" not in f"{public} {hashable_settings(config)}"
    assert config.model.request["extra_headers"] == {"api-key": "s3cret"}


def test_settings_go_through_the_same_parser() -> None:
    """`--set` reads its value as YAML 1.2."""
    assert parse_setting("model.request.min_p=1e-5") == ("model.request.min_p", 1e-5)
    assert parse_setting("model.name=no") == ("model.name", "no")
    assert parse_setting("model.request={a: [1, 2]}") == ("model.request", {"a": [1, 2]})
    assert parse_setting("model.request.stop=a=b") == ("model.request.stop", "a=b")


def test_shorthands(tmp_path: Path) -> None:
    """A bare word stands for the main key of its section, also when another key is set beside it."""
    path = write(tmp_path, "model: nop\nprotocol: execute_tag\n")
    config = load_config(path, {"protocol.merge_user_messages": False})

    assert (config.model.client, config.protocol.kind) == ("nop", "execute_tag")
    assert not config.protocol.merge_user_messages


@pytest.mark.parametrize(
    ("overrides", "merges"),
    [
        ({}, True),
        ({"profile": "upstream"}, False),
        ({"profile": "upstream", "protocol.merge_user_messages": True}, True),
        ({"protocol.merge_user_messages": False}, False),
        ({"profile": "upstream", "protocol.merge_user_messages": None}, False),
    ],
)
def test_profile_decides_what_is_not_set(overrides: dict[str, Any], merges: bool) -> None:
    """Upstream sends two user messages in a row; a setting wins over the profile."""
    assert load_config(None, overrides).merges_user_messages is merges


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    """A setting replaces one key and leaves its neighbours."""
    path = write(tmp_path, "limits: {max_turns: 3, cell_s: 5}\nmodel: oracle\n")
    config = load_config(path, {"limits.max_turns": 7, "model.name": "x"})

    assert (config.limits.max_turns, config.limits.cell_s) == (7, 5)
    assert (config.model.client, config.model.name) == ("oracle", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("bench: x", "unknown key bench; known here: benchmark", id="unknown-key"),
        pytest.param("data_version: head", r"data_version; did you mean data\.version\?; known", id="joined"),
        pytest.param("max_turns: 3", r"did you mean limits\.max_turns\?; known", id="without-its-section"),
        pytest.param(
            "limits: {turns: 3}", "unknown key limits.turns; known here: max_turns", id="unknown-nested"
        ),
        pytest.param("sandbox: {memory: 3}", "unknown key sandbox.memory", id="unknown-in-the-pool"),
        pytest.param(
            "sandbox: {profiles: {p: {tier: process}}}",
            r"unknown key sandbox\.profiles\.p\.tier; known here: python, kernel, preload, .*max_open_files$",
            id="not-a-key-of-a-profile",
        ),
        pytest.param(
            "sandbox: {profiles: {p: {cpu_s: -1}}}",
            r"sandbox\.profiles\.p\.cpu_s: .*got -1",
            id="bad-profile",
        ),
        pytest.param(
            "sandbox: {profile: p}",
            r"sandbox\.profile: no sandbox profile 'p': known are default",
            id="no-such-profile",
        ),
        pytest.param("concurrency: many", "concurrency: .*integer.*'many'", id="wrong-type"),
        pytest.param("concurrency: 0", "concurrency: .*greater than or equal to 1.*got 0", id="too-small"),
        pytest.param("a: 1\na: 2", r'c.yaml:2: found duplicate key "a"$', id="duplicate-key"),
        pytest.param(
            "model: {request: {max_tokens: 0}}", "model.request: .*max_tokens must be at", id="no-reply"
        ),
        pytest.param("profile: upstram", "profile: .*'default' or 'upstream', got 'upstram'", id="profile"),
        pytest.param(
            "prompts: {file: x}", r"unknown key prompts\.file|prompts\.path: Field required", id="prompts"
        ),
        pytest.param("a: [1", r"c.yaml:1: ", id="broken-yaml"),
        pytest.param("- a", "top level must be a mapping", id="a-list"),
        pytest.param("artifacts: [../x]", "leaves the working directory", id="glob-outside"),
    ],
)
def test_bad_config_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong, where, and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("limits.max_turns", "three", "limits.max_turns"),
        ("concurrency.x", 1, "concurrency.x: concurrency is 4, not a mapping"),
        ("nothing.at.all", 1, "unknown key nothing"),
        ("engines.replicas", 0, r"engines\.replicas: .*'auto', or greater than or equal to 1, got 0$"),
        ("cluster.workers", "all", r"cluster\.workers: .*'auto', or a valid integer, .*, got 'all'$"),
    ],
)
def test_bad_setting_names_the_key(tmp_path: Path, key: str, value: Any, message: str) -> None:
    """A setting is refused like a key of the file."""
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, "concurrency: 4"), {key: value})


@pytest.mark.parametrize("section", ["limits", "run_limits"])
def test_limit_on_unknown_costs_is_refused(section: str) -> None:
    """It would never be met; where the prices are known it is taken."""
    limit = {f"{section}.max_cost": 3}
    with pytest.raises(ConfigError, match=rf"{section}\.max_cost: 3 of what is not known; set model\.prices"):
        load_config(None, limit)
    load_config(None, {**limit, "model.prices": {"prompt": 1, "completion": 2}})


@pytest.mark.parametrize("text", ["x", "=1", "a.b={"])
def test_setting_that_cannot_be_read(text: str) -> None:
    """A setting without `=`, without key or with broken YAML is refused."""
    with pytest.raises(ConfigError, match="--set"):
        parse_setting(text)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A config file that is not there is named."""
    with pytest.raises(ConfigError, match=r"absent.yaml: No such file"):
        load_config(tmp_path / "absent.yaml", {})


def test_header_values_are_not_recorded() -> None:
    """A header may hold a secret: its name is recorded, its value is not."""
    config = load_config(None, {"model.headers": {"X-Key": "secret"}})
    assert public_config(config)["model"]["headers"] == {"X-Key": "(not recorded)"}
