"""Engines on a Ray of the test's own, whose GPUs are only counted; the fake engine stands for vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runner.engines import EngineGroup, open_engines, plan_engines, ray_host
from runner.engines.host import EngineSpec
from runner.engines.ray_connection import disconnect, guard_own
from runner.engines.ray_host import RayEngineHost, Site
from runner.errors import AllEnginesLost, ConfigError, EngineStartError
from runner.models import OpenAIClient
from tests.fake_engine import COMMAND, ENVIRONMENT
from tests.processes import processes_below, wait_until_gone
from tests.runner.engines.test_open_engines import ask, config, expected, talk

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-engines"),
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("cluster"),
]

N_GPUS = 4


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[None]:
    """A Ray of one node that says that it has four GPUs."""
    guard_own()
    import ray

    ray.init(address="local", num_cpus=8, num_gpus=N_GPUS, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        disconnect()


def roles(folder: Path) -> dict[str, list[int]]:
    """Return the processes of a folder's engines, by what they are: keeper, engine, core."""
    found: dict[str, list[int]] = {"keeper": [], "engine": [], "core": []}
    for pid in sorted(processes_below(folder)):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if words[0].startswith(b"VLLM::"):
            found["core"].append(pid)
        elif any(word.endswith(b"keeper.py") for word in words):
            found["keeper"].append(pid)
        elif b"tests.fake_engine" in words:
            found["engine"].append(pid)
    return found


def parent(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def owner(keeper: int) -> int:
    """Return the actor that a keeper works for."""
    words = Path(f"/proc/{keeper}/cmdline").read_bytes().split(b"\0")
    return int(next(word for word in words if word.isdigit()))


def gpus_of(pid: int) -> str:
    """Return which GPUs Ray gave a process."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(word.decode().partition("=")[2] for word in environ if word.startswith(b"CUDA_VISIBLE_"))


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for something that is not told of."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - other processes tell nothing
            await asyncio.sleep(0.05)


async def opened(tmp_path: Path, **engines: Any) -> EngineGroup:
    """Return fake engines of a GPU each on the test's Ray, ready."""
    settings = config(tmp_path, kind="ray", **{"gpus_per_replica": 1, **engines})
    return await open_engines(settings, tmp_path / "logs")


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_replicas_have_gpus_of_their_own_and_give_them_back(tmp_path: Path) -> None:
    """In their actors' process groups; at the end, neither a process nor a reservation is left."""
    import ray

    async with await opened(tmp_path, tensor_parallel=2, gpus_per_replica=None) as group:
        rows = group.endpoints()
        assert [row.state for row in rows] == ["ready"] * 2
        assert all(ray.nodes()[0]["NodeManagerAddress"] in row.url for row in rows)
        for row in rows:
            status, _ = await ask(row.url, "chat/completions", messages=[{"role": "user", "content": "x"}])
            assert status == 200
        found = roles(tmp_path)
        assert sorted(map(gpus_of, found["engine"])) == ["0,1", "2,3"]
        actors = {owner(keeper) for keeper in found["keeper"]}
        assert len(actors) == 2
        assert {os.getpgid(pid) for pid in found["engine"] + found["core"]} == actors
        assert not {os.getpgid(pid) for pid in found["keeper"]} & actors
        if os.geteuid() == 0:  # as another user it stays where Ray puts its workers
            assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in found["engine"]} == {0}
        assert ray.available_resources().get("GPU", 0) == 0
    assert not wait_until_gone(tmp_path)
    await until(lambda: ray.available_resources().get("GPU") == N_GPUS)


@pytest.mark.parametrize("victim", ["core", "engine", "keeper", "actor", "ray.kill"])
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_killed_part_takes_the_rest_along_and_comes_back(tmp_path: Path, victim: str) -> None:
    """Nothing of the old engine is left within 5 s; the table moves on; the other replica is untouched."""
    import ray

    async with await opened(tmp_path, replicas=2) as group:
        before, old = group.endpoints(), roles(tmp_path)
        keeper = keeper_at(tmp_path, before[0].url)
        mine = {pid for pids in old.values() for pid in pids if pid == keeper or descends(pid, keeper)}
        assert len(mine) == 3
        match victim:
            case "ray.kill":
                (actor,) = [replica._host._actor for replica in group._replicas[:1]]  # type: ignore[attr-defined]
                ray.kill(actor)
            case "actor":
                os.kill(owner(keeper), signal.SIGKILL)
            case _:
                os.kill(next(pid for pid in old[victim] if pid in mine), signal.SIGKILL)
        await until(lambda: not mine & processes_below(tmp_path), within_s=5.0)
        await until(lambda: (group.endpoints()[0].epoch, group.endpoints()[0].state) == (2, "ready"))
        assert group.endpoints()[0].url != before[0].url
        assert group.endpoints()[1] == before[1]
    assert not wait_until_gone(tmp_path)


def keeper_at(folder: Path, url: str) -> int:
    """Return the keeper of the engine that listens there."""
    port = url.removesuffix("/v1").rpartition(":")[2].encode()
    (engine,) = [
        pid
        for pid in roles(folder)["engine"]
        if port in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    return parent(engine)


def descends(pid: int, ancestor: int) -> bool:
    """Return whether a process has another among its ancestors."""
    while pid > 1:
        pid = parent(pid)
        if pid == ancestor:
            return True
    return False


@pytest.mark.parametrize("victim", ["core", "actor"])
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_turns_are_redone_when_an_engine_is_lost(tmp_path: Path, victim: str) -> None:
    """Every conversation ends as it would have on an engine that lives."""
    settings = config(tmp_path, kind="ray", replicas=2, gpus_per_replica=1, args={"token_s": 0.01})
    async with asyncio.timeout(300.0), await open_engines(settings, tmp_path / "logs") as group:
        model = OpenAIClient([], settings.model, admission=settings.admission, concurrency=64)
        unsubscribe = group.subscribe(model.set_endpoints)
        try:
            await model.start()
            talks = asyncio.gather(*(talk(model, f"question {number}") for number in range(24)))
            await asyncio.sleep(0.1)
            keeper = keeper_at(tmp_path, group.endpoints()[0].url)
            core = next(pid for pid in roles(tmp_path)["core"] if descends(pid, keeper))
            os.kill(core if victim == "core" else owner(keeper), signal.SIGKILL)
            assert await talks == [expected(f"question {number}") for number in range(24)]
            assert sum(endpoint.n_failed_calls for endpoint in model.endpoints()) > 0
        finally:
            unsubscribe()
            await model.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_engines_that_do_not_start_say_why(tmp_path: Path) -> None:
    """One message, with the remedy and the log; nothing is left."""
    with pytest.raises(
        AllEnginesLost, match=r"none of 4 engines started.*raise engines\.tensor_parallel.*\n"
    ):
        await opened(tmp_path, args={"start_fault": "oom"})
    assert not wait_until_gone(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel": 8}, "need 1 x 8 GPUs .* there are 4"),
        ({"replicas": 5}, "5 engines of 1 GPUs and 1 CPUs each do not fit .*: 4 .* room for 4"),
        ({"command": ["/no/such"], "chat_template": "/no/template"}, "cannot read /no/template"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """By the cluster's GPUs, and by the node's view of the files."""
    with pytest.raises(ConfigError, match=message):
        plan_engines(config(tmp_path, kind="ray", **{"gpus_per_replica": None, **settings}))
    assert not wait_until_gone(tmp_path)


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_gpus_that_others_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are waited for, and then the message says who is to be asked."""
    monkeypatch.setattr(ray_host, "CALL_MARGIN_S", 1.0)
    spec = EngineSpec((*COMMAND, "--model", "m"), {**ENVIRONMENT, "FOLDER": str(tmp_path)}, 3.0)
    async with await opened(tmp_path / "first", replicas=2):
        host = RayEngineHost(spec, Site(3, 1, None), tmp_path / "engine.log")
        with pytest.raises(EngineStartError, match="no node of the Ray cluster has 3 GPUs and 1 CPUs free"):
            await host.start()
        await host.close()
