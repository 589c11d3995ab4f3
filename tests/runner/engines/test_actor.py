"""The far end of an engine on Ray, without Ray: where its log goes, and what it finds wrong with a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engines.actor import EngineActor, NodeFacts, check_node
from runner.engines.host import EngineAddress, EngineSpec
from runner.engines.ray_host import describe_ray_error
from runner.errors import ConfigError, EngineStartError
from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.processes import wait_until_gone
from tests.runner.engines.test_open_engines import config

SIGN = "--- actor 5a1e"


def spec(folder: Path, *arguments: str) -> EngineSpec:
    """Return the fake engine, known by a folder."""
    return EngineSpec((*COMMAND, "--model", "m", *arguments), {**ENVIRONMENT, "FOLDER": str(folder)}, 30.0)


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("is_seen", [True, False])
async def test_a_log_goes_where_the_driver_sees_it(tmp_path: Path, is_seen: bool) -> None:
    """Else it stays in a folder of the actor's, and its end can be asked for."""
    log = tmp_path / "engine-0.log"
    log.write_text(f"{SIGN if is_seen else '--- actor 0000'}\n")
    actor = EngineActor(spec(tmp_path, "--start-fault", "oom"), "127.0.0.1", str(log), SIGN, None)
    error = await actor.start()
    assert isinstance(error, EngineStartError)
    assert "CUDA out of memory" in str(error)
    assert ("CUDA out of memory" in log.read_text()) == is_seen
    assert ("CUDA out of memory" in await actor.far_log_tail()) == (not is_seen)
    await actor.close()
    assert not wait_until_gone(tmp_path, 0.0)


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_an_engine_over_nodes_is_told_of_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since vLLM takes GPUs from Ray then; that the actor has none must not blind it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = tmp_path / "said"
    tell = f"import os; open({str(said)!r}, 'w').write(repr(dict(os.environ)))"
    told = EngineSpec((COMMAND[0], "-c", tell), {"FOLDER": str(tmp_path)}, 30.0)
    actor = EngineActor(told, "127.0.0.1", str(tmp_path / "log"), SIGN, "192.0.2.1:6379")
    assert isinstance(await actor.start(), EngineStartError)
    await actor.close()
    assert "'RAY_ADDRESS': '192.0.2.1:6379', 'VLLM_HOST_IP': '127.0.0.1'" in said.read_text()
    assert "CUDA_VISIBLE_DEVICES" not in said.read_text()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_an_engine_starts_again_in_the_same_actor(tmp_path: Path) -> None:
    """After it was stopped; `ended` tells of that."""
    actor = EngineActor(spec(tmp_path), "127.0.0.1", str(tmp_path / "log"), SIGN, None)
    for _ in range(2):
        assert isinstance(await actor.start(), EngineAddress)
        await actor.stop(1.0)
        assert "exit code" in await actor.ended() or "signal" in await actor.ended()
        assert not wait_until_gone(tmp_path, 0.0)
    await actor.close()


def test_a_node_says_what_is_wrong_with_a_model(tmp_path: Path) -> None:
    """Returned, not raised; else what the engine's command line is there."""
    good = config(tmp_path)
    model = str(write_model(tmp_path / "model"))
    facts = check_node(model, good.engines)
    assert isinstance(facts, NodeFacts)
    assert facts.argv[: len(COMMAND)] == COMMAND
    assert model in facts.argv
    wrong = check_node(str(tmp_path / "no"), good.engines)
    assert isinstance(wrong, ConfigError)
    assert "no such folder" in str(wrong)


def test_rays_errors_become_a_line() -> None:
    """The last says what happened; a node without our packages has a remedy of its own."""
    died = "The actor died unexpectedly.\n\tpid: 1\nThe actor is dead because it was killed by `ray.kill`."
    assert describe_ray_error(RuntimeError(died)) == "The actor is dead because it was killed by `ray.kill`."
    missing = "ray::EngineActor.__init__()\nModuleNotFoundError: No module named 'runner'\n"
    assert "--working-dir ." in describe_ray_error(RuntimeError(missing))
    assert describe_ray_error(RuntimeError("")) == "RuntimeError"
