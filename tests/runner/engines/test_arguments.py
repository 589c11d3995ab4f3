"""vLLM's command line: what the config says, what batch work needs, what is passed through."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from runner.config import EnginesConfig, load_config, read_options
from runner.engines.arguments import command_flags, server_command, server_environment
from runner.errors import ConfigError


def flag_values(argv: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the words behind each option."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            words = found.setdefault(word, [])
        else:
            words.append(word)
    return found


def test_defaults_are_what_batch_work_needs() -> None:
    """Cached tokens are told, requests are not logged, prefixes are cached."""
    argv = server_command(EnginesConfig(), "org/model")
    assert argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    flags = flag_values(argv)
    assert flags["--model"] == flags["--served-model-name"] == ["org/model"]
    for switch in (
        "--enable-prompt-tokens-details", "--enable-prefix-caching", "--no-enable-log-requests",
        "--disable-uvicorn-access-log", "--enable-server-load-tracking",
    ):  # fmt: skip
        assert flags[switch] == []
    assert "--chat-template" not in flags


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_model_len": 8192}, ["--max-model-len", "8192"]),
        ({"enforce-eager": True, "async_scheduling": False}, ["--enforce-eager", "--no-async-scheduling"]),
        ({"lora_modules": ["a=/a", "b=/b"]}, ["--lora-modules", "a=/a", "b=/b"]),
        ({"hf_overrides": {"rope": {"factor": 2}}}, ["--hf-overrides", '{"rope": {"factor": 2}}']),
        ({"swap_space": None}, []),
    ],
)
def test_values_become_words(settings: dict[str, Any], expected: list[str]) -> None:
    """Numbers, switches, lists, mappings and nothing."""
    assert command_flags(settings) == expected


def test_a_mapping_replaces_defaults() -> None:
    """One that is null is left out, one that differs stands once."""
    args = {"enable-log-requests": True, "enable_prefix_caching": None}
    flags = flag_values(server_command(EnginesConfig(args=args), "m"))
    assert "--enable-log-requests" in flags
    assert "--no-enable-log-requests" not in flags
    assert "--enable-prefix-caching" not in flags


def test_a_list_stands_last_as_it_is() -> None:
    """Of an option that stands twice, vLLM takes the later one."""
    argv = server_command(EnginesConfig(args=("--enable-log-requests", "--seed=3")), "m")
    assert argv[-2:] == ("--enable-log-requests", "--seed=3")


def test_settings_of_ours_reach_vllm(tmp_path: Any) -> None:
    """Parallelism, dtype, name and template."""
    config = EnginesConfig(
        tensor_parallel=4, pipeline_parallel=2, dtype="half", served_name="mine", chat_template=tmp_path / "t"
    )
    flags = flag_values(server_command(config, "m"))
    assert flags["--tensor-parallel-size"] == ["4"]
    assert flags["--pipeline-parallel-size"] == ["2"]
    assert flags["--dtype"] == ["half"]
    assert flags["--served-model-name"] == ["mine"]
    assert flags["--chat-template"] == [str(tmp_path / "t")]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"port": 8000}, "port is not passed through; the runner takes a free one"),
        (["--tensor-parallel-size=2"], "set engines.tensor_parallel"),
        (["--tensor_parallel_size", "2"], "set engines.tensor_parallel"),
        (["--tensor-parallel", "2"], "set engines.tensor_parallel"),
        (["--enforce-eager", "-tp", "2"], "set engines.tensor_parallel"),
        (["-tp=2"], "set engines.tensor_parallel"),
        (["-pp", "2"], "set engines.pipeline_parallel"),
        ({"pipeline-parallel": 2}, "set engines.pipeline_parallel"),
        ({"hf-token": "secret"}, "set engines.env.HF_TOKEN"),
        ({"ssl_keyfile": "key.pem"}, "plain HTTP"),
        ("--seed 3", "write a mapping"),
    ],
)
def test_options_of_ours_are_not_passed_through(args: Any, message: str) -> None:
    """They would contradict what the runner counts on."""
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"engines.args": args})


def test_environment_gives_a_replica_its_gpus() -> None:
    """And the config has the last word, but about what was shared out: all would have the same."""
    given = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "9", "CUDA_VISIBLE_DEVICES": "2,3,4,5"}
    environment = server_environment(EnginesConfig(env=given), ("2", "3"))
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "9"
    assert "CUDA_VISIBLE_DEVICES" not in server_environment(EnginesConfig())


def test_a_home_folder_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands what stands behind a colon, and vLLM takes it for a hub's name."""
    monkeypatch.setenv("HOME", "/home/somebody")
    words = server_command(EnginesConfig(), "~/models/llama")
    assert words[words.index("--model") + 1] == "/home/somebody/models/llama"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {}),
        (["--enforce-eager"], {"enforce_eager": True}),
        (["--enforce-eager", "--seed=3"], {"enforce_eager": True, "seed": "3"}),
        (["--a=1", "--b-c", "2", "3"], {"a": "1", "b_c": "2"}),
        (["--lora-modules", "a=/b c"], {"lora_modules": "a=/b c"}),
        (["--cpu-offload-gb", "-1"], {"cpu_offload_gb": "-1"}),
        (["-dp", "2", "-dp=4"], {"data_parallel_size": "4"}),
    ],
)
def test_names_in_a_list_are_read(args: list[str], expected: dict[str, Any]) -> None:
    """Also short ones, and where nothing is in it; vLLM gets them as they stand."""
    config = load_config(None, {"engines.args": args}).engines
    assert read_options(config.args) == expected
    assert server_command(config, "m")[-len(args) :] == tuple(args) or not args


def test_names_in_a_mapping_are_vllms() -> None:
    """However they are written there."""
    args = {"max-model-len": 8, "--block_size": 16, "dp": 2}
    flags = flag_values(server_command(EnginesConfig(args=args), "m"))
    assert flags["--max-model-len"] == ["8"]
    assert flags["--block-size"] == ["16"]
    assert flags["--data-parallel-size"] == ["2"]
