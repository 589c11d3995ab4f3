"""A run from Python: what the command does, one trajectory after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import runner
from bench_data import BenchDataError
from runner.config import RunConfig
from runner.errors import ConfigError
from runner.journal import read_trajectories
from sandbox_pool import FakePool, PoolConfig, UnsupportedHost
from tests.runner.test_batch import task_file


@pytest.fixture(name="fake_pool", autouse=True)
def _fake_pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("kernel"):
        monkeypatch.setattr("runner.batch.run.SandboxPool", lambda config, *, trusted_code: FakePool())


def tasks(path: Path, n: int) -> str:
    return task_file(path, *({"id": f"s{i}", "reference": {"cells": ["1"], "answer": "1"}} for i in range(n)))


@pytest.mark.kernel
async def test_demo_from_python(tmp_path: Path) -> None:
    """Real kernels, in a loop that runs already, as in a notebook; each has its line when it is yielded."""
    seen = []
    async for trajectory in runner.run({"model": "oracle", "samples": "math*", "run_dir": tmp_path / "r"}):
        seen.append(trajectory.attempt)
        assert trajectory.attempt in [row["attempt"] for row in read_trajectories(tmp_path / "r")]
        assert (trajectory.stop_reason, trajectory.owner) == ("answer", "model")
    assert len(seen) == len(set(seen)) > 3


async def test_all_forms_of_a_config(tmp_path: Path) -> None:
    """A RunConfig, a mapping, a file; what is done is not yielded again."""
    benchmark = tasks(tmp_path, 5)
    config = RunConfig(benchmark=benchmark, run_dir=tmp_path / "r", limit=2)
    assert len([t async for t in runner.run(config)]) == 2
    assert (
        len([t async for t in runner.run({"benchmark": benchmark, "run_dir": tmp_path / "r", "limit": 3})])
        == 1
    )
    (tmp_path / "c.yaml").write_text(f"benchmark: {benchmark}\nrun_dir: {tmp_path}/r\n")
    assert len([t async for t in runner.run(tmp_path / "c.yaml")]) == 2
    assert len([t async for t in runner.run(str(tmp_path / "c.yaml"))]) == 0


async def test_ending_early_leaves_the_rest(tmp_path: Path) -> None:
    """Leaving the loop cancels what runs; the same config goes on, and nothing is lost or doubled."""
    config = {"benchmark": tasks(tmp_path, 40), "run_dir": tmp_path / "r", "concurrency": 4}
    trajectories = runner.run(config)
    async for trajectory in trajectories:
        assert trajectory.turns
        break
    await trajectories.aclose()  # type: ignore[attr-defined]
    n_done = len(list(read_trajectories(tmp_path / "r")))
    assert 1 <= n_done < 40
    rest = [t.attempt async for t in runner.run(config)]
    assert n_done + len(rest) == 40
    assert len({row["attempt"] for row in read_trajectories(tmp_path / "r")}) == 40


async def test_a_busy_caller_holds_the_run_back(tmp_path: Path) -> None:
    """While a trajectory is looked at, only so many others end as may be in flight."""
    config = {"benchmark": tasks(tmp_path, 40), "run_dir": tmp_path / "r", "concurrency": 3}
    trajectories = runner.run(config)
    await anext(trajectories)
    await asyncio.sleep(0.3)
    assert len(list(read_trajectories(tmp_path / "r"))) <= 1 + 1 + 3 + 1
    assert len([t async for t in trajectories]) == 39


async def test_what_ended_while_the_caller_was_busy(tmp_path: Path) -> None:
    """A run that ends meanwhile, grace period and all, has yielded each trajectory that has a line."""
    config = {
        "benchmark": tasks(tmp_path, 40),
        "run_dir": tmp_path / "r",
        "concurrency": 4,
        "grace_s": 0.05,
        "run_limits": {"wall_s": 0.6},
    }
    trajectories = runner.run(config)
    seen = [(await anext(trajectories)).attempt]
    await asyncio.sleep(1.5)
    seen += [t.attempt async for t in trajectories]
    assert sorted(seen) == sorted(row["attempt"] for row in read_trajectories(tmp_path / "r"))
    assert len(seen) < 40


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"benchmark": "nope"}, "no benchmark is called"),
        ({"speed": 1}, "unknown key speed"),
        (3, "takes a RunConfig"),
    ],
)
async def test_bad_configs_are_refused(config: object, message: str) -> None:
    """With the message of the command line."""
    with pytest.raises((ConfigError, BenchDataError), match=message):
        await anext(runner.run(config))  # type: ignore[arg-type]


async def test_errors_come_out_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no attempt can do better about is raised as it is, not in a group."""

    def no_pool(config: PoolConfig, *, trusted_code: bool) -> FakePool:
        return FakePool(start_error=UnsupportedHost("no namespaces here"))

    monkeypatch.setattr("runner.batch.run.SandboxPool", no_pool)
    with pytest.raises(UnsupportedHost):
        [t async for t in runner.run({"benchmark": tasks(tmp_path, 2), "run_dir": tmp_path / "r"})]


def test_names_are_there() -> None:
    """What the package offers, and what it does not."""
    assert runner.RunConfig is RunConfig
    assert runner.load_config(None, {}) == RunConfig()
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        runner.walk  # noqa: B018 - the access is what is tested
    assert issubclass(ConfigError, ValueError)
