"""From a config to engines that answer, and back to nothing; the fake engine stands for vLLM."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from runner.config import RunConfig, check_config
from runner.engines import open_engines, plan_engines
from runner.errors import AllEnginesLost, ConfigError
from runner.models import ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.fake_engine_core import render, reply_to
from tests.processes import wait_until_gone
from tests.runner.factories import sample


def config(folder: Path, **engines: Any) -> RunConfig:
    """Return a config of fake engines, whose processes are known by the folder."""
    ours = {"command": COMMAND, "env": {**ENVIRONMENT, "FOLDER": str(folder)}, "gpus_per_replica": 0}
    model = write_model(folder / "model")
    return check_config({"model": f"vllm:{model}", "engines": {"served_name": "m", **ours, **engines}})


async def ask(url: str, how: str, **body: Any) -> tuple[int, dict[str, Any]]:
    """Post to an engine; return status and answer."""
    async with aiohttp.ClientSession() as http, http.post(f"{url}/{how}", json=body) as response:
        return response.status, await response.json()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_two_replicas_from_config_to_nothing(tmp_path: Path) -> None:
    """Both answer; one whose core is killed comes back with the next epoch; nothing is left at the end."""
    events: list[tuple[str, dict[str, Any]]] = []
    changed = asyncio.Event()
    async with asyncio.timeout(50.0):
        group = await open_engines(
            config(tmp_path, replicas=2, args={"max_model_len": 4096}), tmp_path / "logs",
            on_event=lambda name, details: events.append((name, details)),
        )  # fmt: skip
        try:
            before = group.endpoints()
            assert [(row.state, row.model, row.max_model_len) for row in before] == [("ready", "m", 4096)] * 2
            say = [{"role": "user", "content": "hello"}]
            for row in before:
                status, answer = await ask(row.url, "chat/completions", model="m", messages=say)
                assert status == 200
                assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
            group.subscribe(lambda table: changed.set())
            await ask(before[0].url.removesuffix("/v1"), "admin/die?how=core500")
            while (row := group.endpoints()[0]).state != "ready" or row.epoch != 2:
                changed.clear()
                await changed.wait()
            assert group.endpoints()[1] == before[1]
            assert (await ask(row.url, "chat/completions", model="m", messages=say))[0] == 200
        finally:
            await group.close()
    assert not wait_until_gone(tmp_path, 0.0)
    assert [name for name, _ in events].count("engine_lost") == 1
    assert (tmp_path / "logs" / "engine-1.log").is_file()


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("oom", "raise engines.tensor_parallel"),
        ("kv", "engines.args.max_model_len"),
        ("argument", "correct engines.args"),
    ],
)
async def test_engines_that_do_not_start_say_why(tmp_path: Path, fault: str, remedy: str) -> None:
    """One message: the remedy, then the log."""
    with pytest.raises(AllEnginesLost, match=f"none of 1 engines started.*{remedy}"):
        await open_engines(config(tmp_path, args={"start_fault": fault}), tmp_path)
    assert not wait_until_gone(tmp_path, 0.0)


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_an_engine_that_hangs_is_started_again(tmp_path: Path) -> None:
    """Its health says 200; that it makes no token gives it away."""
    changed = asyncio.Event()
    async with asyncio.timeout(50.0):
        async with await open_engines(config(tmp_path, stall_s=0.5), tmp_path) as group:
            group.subscribe(lambda table: changed.set())
            (row,) = group.endpoints()
            await ask(row.url.removesuffix("/v1"), "admin/die?how=hang")
            request = ask(row.url, "chat/completions", messages=[{"role": "user", "content": "x"}])
            hanging = asyncio.create_task(request)
            while group.endpoints()[0].epoch != 2 or group.endpoints()[0].state != "ready":
                changed.clear()
                await changed.wait()
            with pytest.raises(aiohttp.ClientError):
                await hanging


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_turns_are_redone_when_a_core_is_killed(tmp_path: Path) -> None:
    """Client and engines together: every conversation ends as it would have on an engine that lives."""
    settings = config(tmp_path, replicas=2, args={"token_s": 0.01})
    async with asyncio.timeout(50.0), await open_engines(settings, tmp_path / "logs") as group:
        model = OpenAIClient([], settings.model, admission=settings.admission, concurrency=64)
        unsubscribe = group.subscribe(model.set_endpoints)
        try:
            await model.start()
            talks = asyncio.gather(*(talk(model, f"question {number}") for number in range(24)))
            await asyncio.sleep(0.1)
            await ask(group.endpoints()[0].url.removesuffix("/v1"), "admin/die?how=core500")
            assert await talks == [expected(f"question {number}") for number in range(24)]
            assert sum(endpoint.n_failed_calls for endpoint in model.endpoints()) > 0
            assert group.endpoints()[1].epoch == 1
        finally:
            unsubscribe()
            await model.close()


def expected(question: str) -> list[str]:
    """Return what any engine replies, turn by turn."""
    messages, replies = [{"role": "user", "content": question}], []
    for _ in range(4):
        replies.append(reply_to(render(messages), 7))
        messages += [{"role": "assistant", "content": replies[-1]}, {"role": "user", "content": "go on"}]
    return replies


async def talk(model: OpenAIClient, question: str) -> list[str]:
    """Hold a conversation of four turns; return the replies."""
    messages, replies = [{"role": "user", "content": question}], []
    for _ in range(4):
        request = ModelRequest(
            sample(question.replace(" ", "-")), 1, len(replies), Conversation(messages), seed=7
        )
        replies.append((await model.complete(request)).text)
        messages = [
            *messages,
            {"role": "assistant", "content": replies[-1]},
            {"role": "user", "content": "go on"},
        ]
    return replies


def test_a_plan_gives_each_replica_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this process may use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    plan = plan_engines(config(tmp_path, gpus_per_replica=None, tensor_parallel=2))
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in plan.specs] == ["4,5", "6,7"]
    env = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "6,7"}
    plan = plan_engines(config(tmp_path, gpus_per_replica=None, env=env))
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in plan.specs] == ["6", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no GPU"):
        plan_engines(config(tmp_path, gpus_per_replica=None))


def test_a_plan_needs_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a command that has it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="make install-engines"):
        plan_engines(config(tmp_path, command=()))


def test_a_plan_checks_the_model(tmp_path: Path) -> None:
    """Before anything is started."""
    wrong = config(tmp_path)
    wrong = wrong.model_copy(
        update={"model": wrong.model.model_copy(update={"client": f"vllm:{tmp_path}/no"})}
    )
    with pytest.raises(ConfigError, match="no such folder"):
        plan_engines(wrong)
