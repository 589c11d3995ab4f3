"""A model that replays a file does so on nodes that do not see it, or have another one of that name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.cluster.crew import Crew
from runner.cluster.messages import Setup
from runner.cluster.recording import has_same_recording, put_down, with_digest
from runner.cluster.run import ClusterRun, ClusterSettings
from runner.config import RunConfig
from runner.encoding import encode_line
from runner.errors import ClusterError
from runner.journal import Journal, read_trajectories
from runner.models import ReplayClient
from runner.plan import attempts
from runner.protocols import Fenced
from runner.records import Turn
from tests.runner.cluster.fleet import LocalFleet
from tests.runner.cluster.test_cluster_run import samples
from tests.runner.factories import IDENTITY, trajectory


def setup_for(path: Path) -> Setup:
    config = RunConfig.model_validate({"model": f"replay:{path}"})
    return Setup(config, Fenced(None), "", benchmark_digest="another", trusted_code=True)


def recorded(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "trajectories.jsonl"
    rows = [trajectory(f"s{n}", turns=[Turn(completion=f"I say {n}")]) for n in range(3)]
    path.write_bytes(b"".join(map(encode_line, rows)))
    return path


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("is_there", [True, False])
async def test_on_a_node_that_has_it_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    path = recorded(tmp_path / "recorded")
    monkeypatch.setattr("runner.cluster.worker.has_same_recording", lambda setup: is_there)
    fleet = LocalFleet(2)
    crew = Crew(fleet, setup_for(path))
    try:
        await crew.open()
        with Journal(tmp_path / "run") as journal:
            run = ClusterRun(crew, IDENTITY, journal, ClusterSettings(2), n_total=3)
            async with asyncio.timeout(20):
                await run.run(attempts(samples(3), 1, done=set()))
        models = [link.worker._model for link in fleet.links]
    finally:
        await crew.close()
        await fleet.close()

    said = {row["attempt"]: row["turns"][0]["completion"] for row in read_trajectories(tmp_path / "run")}
    assert said == {f"s{n}@1": f"I say {n}" for n in range(3)}
    assert [isinstance(model, ReplayClient) and model.path == path for model in models] == [is_there] * 2


def test_one_that_is_not_the_same(tmp_path: Path) -> None:
    """A file of that name will not do, and neither will none; a folder stands for the run in it."""
    path = recorded(tmp_path / "recorded")
    setup = with_digest(setup_for(path.parent))
    assert has_same_recording(setup)
    assert has_same_recording(put_down(setup, path.read_bytes(), tmp_path))

    path.write_bytes(path.read_bytes() + b"\n")
    assert not has_same_recording(setup)
    path.unlink()
    assert not has_same_recording(setup)


async def test_one_that_the_driver_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"replay:.*nowhere cannot be read: No such file"):
        await Crew(LocalFleet(1), setup_for(tmp_path / "nowhere")).open()
