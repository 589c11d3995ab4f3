"""However somebody dies, nothing of an engine runs five seconds later, its core that ignores SIGTERM included."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.engines import orphans
from runner.engines.host import EngineSpec
from runner.engines.keeper import descendants
from runner.engines.process import EngineProcess
from tests.fake_engine import COMMAND, ENVIRONMENT
from tests.processes import ROOT, processes_below, wait_until_gone

OWNER = """
import asyncio, os, sys
from pathlib import Path
from runner.engines.host import EngineSpec
from runner.engines.process import EngineProcess
from tests.fake_engine import COMMAND, ENVIRONMENT

async def main():
    spec = EngineSpec((*COMMAND, "--model", "m"), ENVIRONMENT, 50.0)
    host = EngineProcess(spec, Path(os.environ["FOLDER"]) / "engine.log", own_group=sys.argv[1] == "own")
    await host.start()
    print("ready", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""
FORKER = OWNER.replace("    print", "    os.fork() or __import__('time').sleep(3600)\n    print")
"""Its child was forked without exec, and holds all of its pipes."""


@pytest.fixture(name="left", autouse=True)
def _left(tmp_path: Path) -> Iterator[None]:
    yield
    for pid in processes_below(tmp_path):
        os.kill(pid, signal.SIGKILL)


def names_below(folder: Path) -> dict[str, int]:
    """Return what runs there, by what it is: owner, keeper, engine, core."""
    found = {}
    for pid in processes_below(folder):
        try:
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if words[0].startswith(b"VLLM::"):
            found["core"] = pid
        elif any(word.endswith(b"keeper.py") for word in words):
            found["keeper"] = pid
        elif b"tests.fake_engine" in words:
            found["engine"] = pid
        else:
            found["owner"] = pid
    return found


def start_owner(folder: Path, group: str, code: str = OWNER) -> subprocess.Popen[bytes]:
    """Start a process that owns an engine; return when the engine is ready."""
    owner = subprocess.Popen(
        [sys.executable, "-c", code, group], stdout=subprocess.PIPE, start_new_session=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FOLDER": str(folder)},
    )  # fmt: skip
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    return owner


@pytest.mark.parametrize("group", ["own", "owners"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_an_engine_ends_with_its_owner(tmp_path: Path, group: str, how: signal.Signals) -> None:
    """In whichever process group it is."""
    owner = start_owner(tmp_path, group)
    names = names_below(tmp_path)
    assert {"owner", "keeper", "engine", "core"} <= names.keys()
    same = os.getpgid(names["core"]) == os.getpgid(owner.pid)
    assert same == (group == "owners")
    os.kill(owner.pid, how)
    owner.wait(5.0)
    assert not wait_until_gone(tmp_path)
    owner.stdout and owner.stdout.close()


def test_an_engine_ends_although_a_child_of_the_owner_lives_on(tmp_path: Path) -> None:
    """One that was forked without exec holds the owner's end of the keeper's pipe."""
    owner = start_owner(tmp_path, "own", FORKER)
    owner.kill()
    owner.wait(5.0)
    deadline = time.monotonic() + 5.0
    while len(left := names_below(tmp_path)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left.keys() == {"owner"}, left
    owner.stdout and owner.stdout.close()


def test_nothing_is_left_when_a_whole_group_is_killed(tmp_path: Path) -> None:
    """As the raylet does with an actor's: keeper and owner at once."""
    owner = start_owner(tmp_path, "owners")
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait(5.0)
    assert not wait_until_gone(tmp_path)
    owner.stdout and owner.stdout.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("victim", ["engine", "core", "keeper"])
async def test_what_a_killed_part_leaves_is_swept(tmp_path: Path, victim: str) -> None:
    """The owner is told, and the rest is gone by then."""
    spec = EngineSpec((*COMMAND, "--model", "m"), {**ENVIRONMENT, "FOLDER": str(tmp_path)}, 50.0)
    host = EngineProcess(spec, tmp_path / "engine.log")
    await host.start()
    try:
        os.kill(names_below(tmp_path)[victim], signal.SIGKILL)
        async with asyncio.timeout(5.0):
            how = await host.ended()
        assert how == {"engine": "signal 9", "core": "exit code 1", "keeper": "its keeper was killed"}[victim]
        assert not wait_until_gone(tmp_path, 0.0)
        assert not descendants(os.getpid())
    finally:
        await host.close()


def test_what_is_not_marked_is_left_alone(tmp_path: Path) -> None:
    """The mark is a random number; another engine has another."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **orphans.marked("one")}) as other:
        try:
            assert orphans.sweep_marked("two") == 0
            assert other.poll() is None
            assert orphans.sweep_marked("one") == 1
            assert other.wait(5.0) == -signal.SIGKILL
        finally:
            other.kill()
