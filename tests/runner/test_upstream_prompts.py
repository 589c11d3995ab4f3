"""A config of PyBench's own: what of it is used, what wins over it, and that its secrets go nowhere."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner.batch import Watching, prepare, run_batch
from runner.commands.run import warnings_of
from runner.config import RunConfig, load_config, public_config
from runner.errors import ConfigError, RunMismatch
from runner.journal import read_config, read_trajectories
from runner.resume import check_same_run
from runner.upstream_prompts import read_upstream
from sandbox_pool import FakePool
from tests.stub_server import StubServer, completion

PROMPT = "You are tested.\n\nWrite code.\n"
SECRET = "sk-not-to-be-seen"

WHOLE = f"""\
system_prompt_template: |
  You are tested.

  Write code.
code_start_token: "<code>"
code_end_token: "</code>"
tool_call_token: "<call>"
mode: "prompt"
max_turns: 7
llm:
  type: "openai"
  args:
    client_args:
      api_key: {SECRET}
      api_keys: [{SECRET}, {SECRET}-2]
      base_url: http://{SECRET}.invalid/v1
      organization: org-{SECRET}
      project: null
      max_retries: 2
      timeout: 60
    model_args:
      model: tested-model
      temperature: 0.2
      max_tokens: 1000
      top_p: 0.5
      frequency_penalty: 1.02
"""


@pytest.fixture(name="prompts")
def _prompts(tmp_path: Path) -> Path:
    path = tmp_path / "llama3.yaml"
    path.write_text(WHOLE)
    return path


def with_prompts(prompts: Path, **settings: Any) -> RunConfig:
    return load_config(None, {"prompts": str(prompts), **settings})


def test_every_key_is_used_or_named(prompts: Path) -> None:
    """What decides a trajectory is taken over; what says who pays and where is listed, without its value."""
    config = with_prompts(prompts)

    assert config.protocol.kind == "fenced"
    assert config.protocol.system_prompt == PROMPT
    assert (config.protocol.code_start_token, config.protocol.code_end_token) == ("<code>", "</code>")
    assert config.limits.max_turns == 7
    assert (config.model.name, config.model.max_retries, config.model.timeout_s) == ("tested-model", 2, 60)
    sampling = {"temperature": 0.2, "max_tokens": 1000, "top_p": 0.5, "frequency_penalty": 1.02}
    assert config.model.request == sampling
    assert config.prompts is not None
    assert config.prompts.sha256 == hashlib.sha256(WHOLE.encode()).hexdigest()
    unused = ("api_key", "api_keys", "base_url", "organization")
    assert config.prompts.unused == tuple(f"llm.args.client_args.{key}" for key in unused)


def test_no_secret_is_recorded(prompts: Path) -> None:
    """Neither the config that goes to disk nor what a resume compares holds a credential or an address."""
    config = with_prompts(prompts, model="nop")
    record = prepare(config).record({})
    assert SECRET not in json.dumps([public_config(config), record.settings, record.config])


def test_explicit_settings_win(prompts: Path, tmp_path: Path) -> None:
    """The user's file and settings lie over it, key by key, and the record says which keys it gave."""
    own = tmp_path / "own.yaml"
    own.write_text(f"prompts: {prompts}\nmodel: {{client: nop, request: {{temperature: 1.0}}}}\n")
    config = load_config(own, {"limits.max_turns": 3, "model.request.top_p": 0.9})

    assert (config.limits.max_turns, config.model.client) == (3, "nop")
    sampling = {"temperature": 1.0, "max_tokens": 1000, "top_p": 0.9, "frequency_penalty": 1.02}
    assert config.model.request == sampling
    assert config.prompts is not None
    assert "protocol.system_prompt" in config.prompts.given
    assert {"limits.max_turns", "model.request.temperature"}.isdisjoint(config.prompts.given)
    assert config.prompts.outvoted == ("limits.max_turns", "model.request.temperature", "model.request.top_p")


@pytest.mark.parametrize("form", ["path", "mapping", "sections"])
def test_it_is_read_however_the_config_is_made(prompts: Path, form: str) -> None:
    """From Python too: as a path, as a mapping, and beside sections that are objects."""
    data: dict[str, Any] = {
        "path": {"prompts": prompts},
        "mapping": {"prompts": {"path": str(prompts)}},
        "sections": {"prompts": prompts, "limits": RunConfig().limits},
    }[form]
    assert RunConfig.model_validate(data).limits.max_turns == 7


def test_calls_in_the_text(tmp_path: Path) -> None:
    """`functioncall` takes upstream's other protocol, with its token."""
    prompts = tmp_path / "c.yaml"
    prompts.write_text(WHOLE.replace('mode: "prompt"', 'mode: "functioncall"'))
    batch = prepare(with_prompts(prompts, model="nop"))

    assert batch.protocol.name == "function_call"
    assert batch.config.protocol.code_start_token is None
    assert batch.protocol.write_action("1").text == '<call>{"code": "1"}'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('mode: "prompt"', "mode: assistant", "mode 'assistant' was never implemented upstream", id="assistant"),
        pytest.param('mode: "prompt"', "mode: chat", "mode: Input should be 'prompt', .*got 'chat'", id="mode"),
        pytest.param("max_turns: 7", "max_turn: 7", "unknown key max_turn; upstream's keys there: system_prompt_template, .*max_turns", id="key"),
        pytest.param("base_url:", "url:", r"unknown key llm\.args\.client_args\.url; upstream's keys there: api_key, api_keys, base_url", id="client-key"),
        pytest.param("temperature:", "api_key: x\n      temp:", r"unknown key llm\.args\.model_args\.(api_key|temp);", id="model-key"),
        pytest.param("max_turns: 7", "max_turns: 0", "max_turns: .*greater than 0, got 0", id="turns"),
        pytest.param('"<code>"', '""', "code_start_token: .*at least 1 character", id="empty-token"),
        pytest.param("type: \"openai\"", "type: azure", r"llm\.type: Input should be 'openai'", id="client"),
        pytest.param(f"api_key: {SECRET}", f"api_key: {SECRET}\n      api_key: 2{SECRET}", r":\d+: found duplicate key \"api_key\"$", id="duplicate"),
        pytest.param("timeout: 60", f"timeout: {SECRET}", r"llm\.args\.client_args\.timeout: Input should be a valid number", id="wrong-type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_without_secrets(prompts: Path, old: str, new: str, message: str) -> None:
    """The file, the key and what is allowed; no value from where credentials stand."""
    prompts.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as raised:
        with_prompts(prompts)
    assert str(raised.value).startswith(f"prompts {prompts}")
    assert SECRET not in str(raised.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file without upstream's prompt is not one of its configs; one that is not there is named."""
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="system_prompt_template is missing"):
        with_prompts(tmp_path / "empty.yaml")
    with pytest.raises(ConfigError, match=r"prompts .*absent.yaml: No such file"):
        with_prompts(tmp_path / "absent.yaml")


def test_extra_body_is_merged() -> None:
    """As OpenAI's client does; what is null is left out."""
    args = {"model": None, "stop": None, "top_p": 1, "extra_body": {"top_k": 5}}
    data = {"system_prompt_template": "x", "llm": {"args": {"model_args": args}}}
    assert read_upstream(data, "c").settings["model"] == {"request": {"top_p": 1, "top_k": 5}}


def test_tokens_of_another_protocol_are_refused(prompts: Path) -> None:
    """Its prompt asks for one form and the setting reads another: no reply would be understood."""
    with pytest.raises(ConfigError, match="code_start_token is '<code>', and protocol tool_call has no such"):
        prepare(with_prompts(prompts, **{"model": "nop", "protocol.kind": "tool_call"}))


@pytest.mark.parametrize(
    ("settings", "source", "text"),
    [
        ({}, "llama3.yaml", PROMPT),
        ({"protocol.system_prompt": "mine"}, "config", "mine"),
        ({"protocol.system_prompt": ""}, "config", ""),
    ],
)
def test_settings_say_whose_prompt_it_is(
    prompts: Path, settings: dict[str, Any], source: str, text: str
) -> None:
    """The name of the file, or the config; and what the text was."""
    record = prepare(with_prompts(prompts, model="nop", **settings)).record({})
    expected = (source, hashlib.sha256(text.encode()).hexdigest())
    assert (record.settings["prompt.source"], record.settings["prompt.sha256"]) == expected


def test_own_prompt_is_told_by_its_text() -> None:
    """A run with our own prompt says so, and a later version of the prompt is another one."""
    batch = prepare(RunConfig(limit=1))
    settings = batch.record({}).settings
    digest = hashlib.sha256(batch.protocol.system_prompt.encode()).hexdigest()
    assert (settings["prompt.source"], settings["prompt.sha256"]) == ("own", digest)


def test_resume_goes_by_what_the_file_says(prompts: Path, tmp_path: Path) -> None:
    """Another key or place does not matter, another prompt does."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    record = prepare(with_prompts(prompts, model="nop")).record({})
    (run_dir / "config.json").write_text(json.dumps(record.as_json(run_dir)))

    moved = tmp_path / "elsewhere" / prompts.name
    moved.parent.mkdir()
    moved.write_text(WHOLE.replace(SECRET, "sk-renewed"))
    check_same_run(run_dir, prepare(with_prompts(moved, model="nop")).record({}))

    moved.write_text(WHOLE.replace("tested.", "tried."))
    with pytest.raises(RunMismatch, match=r"prompt\.sha256"):
        check_same_run(run_dir, prepare(with_prompts(moved, model="nop")).record({}))


def test_user_is_warned(prompts: Path) -> None:
    """A line for each key that is not used, with what is instead, and without its value."""
    same, other = {"limits.max_turns": 7}, {"model.request.max_tokens": 4000}
    batch = prepare(with_prompts(prompts, model="nop", **same, **other))
    lines = warnings_of(batch)

    assert len(lines) == 5
    assert "model.request.max_tokens is not used: your config or command line sets another value" in lines[4]
    assert f"{prompts}: llm.args.client_args.api_key is not used: the key is read from" in lines[0]
    assert SECRET not in "".join(lines)


async def test_run_as_upstream(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets upstream's messages, tokens are read, and the run directory holds no secret."""
    monkeypatch.setattr("runner.batch.run.SandboxPool", lambda config, trusted_code: FakePool())
    meta = tmp_path / "bench/data/meta"
    meta.mkdir(parents=True)
    (meta / "task.json").write_text(json.dumps([{"index": "135", "user": "add up", "file_paths": []}]))

    async def answer(body: dict[str, Any]) -> Any:
        first = all(message["role"] != "assistant" for message in body["messages"])
        return completion("<code>1 + 1</code>" if first else "Finished: 2")

    async with StubServer(answer, models=("tested-model",)) as server:
        config = with_prompts(
            prompts,
            **{
                "benchmark": "pybench", "data.root": tmp_path / "bench", "profile": "upstream",
                "model.client": f"openai:{server.url}", "run_dir": tmp_path / "run", "progress": "quiet",
            },
        )  # fmt: skip
        await run_batch(prepare(config), Watching(Console(file=io.StringIO())))

    first = server.requests[0]
    assert [message["role"] for message in first["messages"]] == ["system", "user", "user"]
    assert first["messages"][0]["content"] == PROMPT
    assert (first["model"], first["top_p"], first["frequency_penalty"]) == ("tested-model", 0.5, 1.02)
    (row,) = read_trajectories(tmp_path / "run")
    assert [turn["action"] for turn in row["turns"]] == ["1 + 1", None]
    assert read_config(tmp_path / "run")["settings"]["prompt.source"] == "llama3.yaml"
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in json.dumps([server.requests, server.headers])
