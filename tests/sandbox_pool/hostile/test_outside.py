"""What a sandbox's processes are, as the machine sees them: nothing that they say themselves is believed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox_pool import SandboxSpec
from tests.sandbox_pool.hostile.arena import Arena
from tests.sandbox_pool.hostile.setups import SETUPS, Setup
from tests.sandbox_pool.hostile.world import Seen, below

pytestmark = pytest.mark.kernel
in_module = pytest.mark.asyncio(loop_scope="module")
_NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
ALL = pytest.mark.parametrize("arena", SETUPS, indirect=True, ids=str)
HELD = pytest.mark.parametrize(
    "arena", [setup for setup in SETUPS if setup.tier != "process"], indirect=True, ids=str
)
NAMESPACE = pytest.mark.parametrize(
    "arena", [setup for setup in SETUPS if setup.tier == "namespace"], indirect=True, ids=str
)


@asynccontextmanager
async def lent(arena: Arena) -> AsyncIterator[list[Seen]]:
    """Lend a sandbox in which a cell has started a child, as its processes."""
    known = below(os.getpid())
    async with arena.ordeal() as sandbox:
        await sandbox.execute(
            "import subprocess\na = subprocess.Popen(['sleep', '100'], start_new_session=True)"
        )
        yield [seen for key, seen in below(os.getpid()).items() if key not in known]


def status(pid: int) -> dict[str, str]:
    """Return what /proc/PID/status says."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@in_module
@ALL
async def test_never_root(arena: Arena) -> None:
    """No process of a sandbox has the machine's uid or gid 0 in any of its sets, init included in `namespace`."""
    async with lent(arena) as processes:
        for seen in processes:
            said = status(seen.pid)
            is_guard = seen.parent not in {other.pid for other in processes}
            if os.geteuid() == 0 and not (is_guard and arena.setup.tier != "namespace"):
                assert "0" not in (*said["Uid"].split(), *said["Gid"].split(), *said["Groups"].split()), said


@in_module
@HELD
async def test_no_privileges(arena: Arena) -> None:
    """Kernel and children have no capability, not even to get one, cannot gain any, and are filtered."""
    async with lent(arena) as processes:
        pids = {seen.pid for seen in processes}
        for seen in processes:
            if arena.setup.tier != "namespace" and seen.parent not in pids:
                continue  # the guardian is on our side of the wall
            said = status(seen.pid)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(said[name], 16) == 0, (seen, name, said[name])
            assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2"), seen


@in_module
@NAMESPACE
async def test_namespaces_of_its_own(arena: Arena) -> None:
    """Every process is in seven namespaces that are neither ours, nor the zygote's, nor another sandbox's."""
    async with lent(arena) as processes:
        pids = {seen.pid for seen in processes}
        others = {os.getpid(), *(seen.pid for seen in below(os.getpid()).values())} - pids
        for kind in _NAMESPACES:
            taken = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in others}
            own = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in pids}
            assert len(own) == 1, (kind, own)
            assert not own & taken, (kind, own, taken)


@in_module
@NAMESPACE
async def test_its_user_namespace_maps_no_root(arena: Arena) -> None:
    """The only uid that exists in a sandbox is one ordinary one of this machine."""
    async with lent(arena) as processes:
        for seen in processes:
            for kind in ("uid", "gid"):
                ((inside, outside, count),) = [
                    map(int, line.split())
                    for line in Path(f"/proc/{seen.pid}/{kind}_map").read_text().splitlines()
                ]
                assert inside == 1000
                assert outside != 0
                assert count == 1


@in_module
@ALL
async def test_killed_before_us(arena: Arena) -> None:
    """When this machine is out of memory, it takes a sandbox before it takes the runner."""
    async with lent(arena) as processes:
        ours = int(Path("/proc/self/oom_score_adj").read_text())
        kernels = [seen for seen in processes if seen.parent in {other.pid for other in processes}]
        assert kernels
        for seen in kernels:
            assert int(Path(f"/proc/{seen.pid}/oom_score_adj").read_text()) >= ours + 500


@in_module
@ALL
async def test_environment_from_outside(arena: Arena) -> None:
    """No process of ours below the runner, keeper and zygote included, was given a variable of the runner's."""
    for seen in below(os.getpid()).values():
        assert b"KFCANARY" not in Path(f"/proc/{seen.pid}/environ").read_bytes(), seen
        assert b"KFCANARY" not in Path(f"/proc/{seen.pid}/cmdline").read_bytes(), seen


@in_module
@HELD
async def test_workspace_is_all_that_is_seen(arena: Arena, tmp_path: Path) -> None:
    """A workspace can be read and not written; what lies beside it on this machine cannot be seen."""
    top = arena.bait.folder / f"w-{arena.setup}"
    (top / "mine").mkdir(parents=True)
    (top / "beside").mkdir()
    (top / "mine" / "data.txt").write_text("given")
    (top / "beside" / "secret.txt").write_text("secret")
    cell = f"""
import os
print(open('workspace/data.txt').read())
for act in (lambda: open('workspace/data.txt', 'a'), lambda: open('workspace/new', 'w'), lambda: os.remove('workspace/data.txt'),
            lambda: os.listdir({str(top / "beside")!r}), lambda: open('workspace/../beside/secret.txt'),
            lambda: open(os.path.realpath('workspace') + '/../beside/secret.txt'), lambda: os.chmod('workspace/data.txt', 0o777)):
    try: act(); print('could')
    except OSError: pass
"""
    spec = SandboxSpec(workspace=top / "mine")
    async with arena.pool.acquire(spec):
        pass  # what it is forked from stays
    async with arena.ordeal(spec=spec) as sandbox:
        seen = await sandbox.execute(cell)
        assert seen.stdout == "given\n", seen
    assert (top / "mine" / "data.txt").read_text() == "given"


def test_every_tier_is_tried() -> None:
    """On a machine that offers user namespaces and Landlock, all three tiers are in these tests."""
    assert {setup.tier for setup in SETUPS} == {"namespace", "landlock", "process"}
    assert Setup("process", "lean") in SETUPS
