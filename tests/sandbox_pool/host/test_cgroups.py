from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_pool.host import hierarchies
from sandbox_pool.host.cgroups import Counters, Group, GroupLimits, Groups, open_groups, try_out
from sandbox_pool.host.group_folders import kill, locked_folder, remove_abandoned, remove_pool
from sandbox_pool.host.hierarchies import LEAF, Hierarchies, Hierarchy, find, free_memory_bytes, read_mounts

MIB = 1 << 20


class FakeSystem:
    """What a system shows of control groups, in a folder; groups made in version 2 get their files."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.process = top / "self"
        self.process.mkdir(parents=True)
        self.mounts: list[str] = []
        self.groups: list[str] = []

    def mount(self, kind: str, options: str, *, root: str = "/", group: str = "/", **files: str) -> Path:
        """Mount a hierarchy; return the folder of our group in it, with these files (`__` for `.`)."""
        at = self.top / f"fs-{len(self.mounts)}"
        own = at / group.removeprefix("" if root == "/" else root).lstrip("/")
        own.mkdir(parents=True)
        if kind == "cgroup2":
            (at / "cgroup.controllers").write_text("cpu memory pids hugetlb")
        for name, text in files.items():
            (own / name.replace("__", ".")).write_text(text)
        mounted = str(at).replace(" ", r"\040")
        self.mounts.append(f"31 23 0:28 {root} {mounted} rw,relatime shared:9 - {kind} {kind} rw,{options}")
        self.groups.append(f"{len(self.mounts)}:{options}:{group}" if kind == "cgroup" else f"0::{group}")
        self.write()
        return own

    def write(self) -> None:
        (self.process / "mountinfo").write_text("\n".join(["1 0 0:1 / / rw - ext4 /dev/a rw", *self.mounts]))
        (self.process / "cgroup").write_text("\n".join(self.groups))


@pytest.fixture(name="system")
def _system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path / "a system")


V2 = {"cgroup__controllers": "cpu memory pids", "cgroup__type": "domain"}


# -- finding


def test_nothing_is_found_where_nothing_is(system: FakeSystem) -> None:
    """A system without control groups, or without proc, says so for each controller."""
    system.write()
    for process in (system.process, system.top / "missing"):
        found = find(process)
        assert found.places == ()
        assert found.missing.keys() == {"memory", "pids", "cpu"}
    assert free_memory_bytes(system.process) is None


def test_version_1_is_found_below_our_own_group(system: FakeSystem) -> None:
    """Of version 1 each controller may be mounted apart; our own group is where ours are made."""
    memory = system.mount("cgroup", "memory", group="/job/7")
    pids = system.mount("cgroup", "pids", root="/docker/9", group="/docker/9")
    both = system.mount("cgroup", "cpu,cpuacct")
    found = find(system.process)
    assert found.places == (
        Hierarchy(1, memory, frozenset({"memory"})),
        Hierarchy(1, pids, frozenset({"pids"})),
        Hierarchy(1, both, frozenset({"cpu"})),
    )
    assert not found.missing


def test_group_out_of_sight_is_not_used(system: FakeSystem) -> None:
    """A group that this mount does not show, or that lies above a namespace, is not guessed at."""
    system.mount("cgroup", "memory", root="/docker/9", group="/docker/9")
    system.mount("cgroup", "pids")
    system.groups = ["1:memory:/docker/95", "2:pids:/../x"]
    system.write()
    assert find(system.process).places == ()


def test_hybrid_system_takes_each_controller_where_it_is(system: FakeSystem) -> None:
    """What version 1 has is taken there, the rest from version 2."""
    own = system.mount("cgroup2", "nsdelegate", cgroup__controllers="hugetlb")
    pids = system.mount("cgroup", "pids")
    found = find(system.process)
    assert found.places == (Hierarchy(1, pids, frozenset({"pids"})),)
    assert found.missing.keys() == {"memory", "cpu"}
    assert "does not offer" in found.missing["memory"]
    assert own.is_dir()


def test_version_2_given_to_us_alone(system: FakeSystem) -> None:
    """A group with no process but this one can be divided once this one has gone into a leaf."""
    own = system.mount("cgroup2", "rw", group="/user.slice/run-1.scope", **V2,
                       cgroup__procs=f"{os.getpid()}\n", cgroup__subtree_control="")  # fmt: skip
    assert find(system.process).places == (
        Hierarchy(2, own, frozenset({"cpu", "memory", "pids"}), must_move=True),
    )


def test_version_2_shared_with_others(system: FakeSystem) -> None:
    """Processes of others are not moved: what helps is said instead."""
    system.mount("cgroup2", "rw", group="/user.slice/run-1.scope", **V2,
                 cgroup__procs=f"{os.getpid()}\n{os.getppid()}\n", cgroup__subtree_control="")  # fmt: skip
    found = find(system.process)
    assert found.places == ()
    assert "systemd-run" in found.missing["memory"]


def test_version_2_divided_above(system: FakeSystem) -> None:
    """Where a group above already bounds its children, ours go beside the one that we are in."""
    own = system.mount("cgroup2", "rw", group="/a.slice/b.scope", **V2, cgroup__procs="1\n2\n")
    (own.parent / "cgroup.procs").touch()
    (own.parent / "cgroup.subtree_control").write_text("memory pids\n")
    found = find(system.process)
    assert found.places == (Hierarchy(2, own.parent, frozenset({"memory", "pids"})),)
    assert "cgroup.subtree_control" in found.missing["cpu"]


def test_version_2_divided_further_above(system: FakeSystem) -> None:
    """Where the group that we are in is given nothing, one that lies further up may be."""
    own = system.mount("cgroup2", "rw", group="/user/app/b.scope", cgroup__controllers="", cgroup__procs="1\n2\n",
                       cgroup__type="domain")  # fmt: skip
    user = own.parent.parent
    (user / "cgroup.procs").touch()
    (user / "cgroup.subtree_control").write_text("memory pids\n")
    assert find(system.process).places == (Hierarchy(2, user, frozenset({"memory", "pids"})),)


def test_leaf_of_an_earlier_pool_is_not_nested(system: FakeSystem) -> None:
    """A second pool of a process that has moved uses the group above the leaf again."""
    own = system.mount("cgroup2", "rw", group=f"/x.scope/{LEAF}", **V2, cgroup__procs=f"{os.getpid()}\n",
                       cgroup__subtree_control="")  # fmt: skip
    (own.parent / "cgroup.procs").touch()
    (own.parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert find(system.process).places == (Hierarchy(2, own.parent, frozenset({"cpu", "memory", "pids"})),)


def test_root_of_version_2_may_hold_processes(system: FakeSystem) -> None:
    """The root group alone is divided with processes in it."""
    own = system.mount("cgroup2", "rw", cgroup__controllers="memory pids", cgroup__procs="1\n2\n")
    assert find(system.process).places == (Hierarchy(2, own, frozenset({"memory", "pids"})),)


def test_ordinary_user_is_told_what_helps(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that we may not write are no places, whoever runs these tests."""
    system.mount("cgroup", "memory")
    system.mount("cgroup2", "rw", group="/u", **V2, cgroup__procs="1\n", cgroup__subtree_control="")
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    found = find(system.process)
    assert found.places == ()
    assert "start as root" in found.missing["memory"]
    assert "systemd-run" in found.missing["pids"]


def test_room_is_the_tightest_on_the_way_up(system: FakeSystem) -> None:
    """Free memory is what the narrowest of the groups above leaves, dropped caches counted as free."""
    own = system.mount("cgroup2", "rw", group="/a/b", **V2)
    for folder, limit, used, inactive in (
        (own, "max", 5, 0),
        (own.parent, f"{90 * MIB}", 50 * MIB, 20 * MIB),
    ):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 3\n")
    assert free_memory_bytes(system.process) == 60 * MIB


def test_room_of_version_1(system: FakeSystem) -> None:
    """Of version 1 no limit is a huge number, and the caches of children count as free as well."""
    own = system.mount("cgroup", "memory", group="/a", memory__limit_in_bytes="9223372036854771712",
                       memory__usage_in_bytes="5", memory__stat="total_inactive_file 0\n")  # fmt: skip
    assert free_memory_bytes(system.process) is None
    (own / "memory.limit_in_bytes").write_text(str(10 * MIB))
    (own / "memory.usage_in_bytes").write_text(str(12 * MIB))
    (own / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {4 * MIB}\n")
    assert free_memory_bytes(system.process) == 2 * MIB


# -- version 2 without a system that has it


@pytest.fixture(name="unified")
def _unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which mkdir makes the files of version 2, and rmdir takes them along."""
    parent = tmp_path / "unified"
    files = {
        "cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.kill": "", "memory.max": "max",
        "memory.swap.max": "max", "memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
        "memory.peak": "4096\n", "pids.max": "max", "pids.events": "max 7\n", "cpu.max": "max 100000",
    }  # fmt: skip
    make, remove = Path.mkdir, Path.rmdir

    def mkdir(folder: Path, *args: object, **kwargs: object) -> None:
        make(folder, *args, **kwargs)  # type: ignore[arg-type]
        if parent in (folder, *folder.parents):
            for name, text in files.items():
                (folder / name).write_text(text)

    def rmdir(folder: Path) -> None:
        if parent in folder.parents and all(entry.is_file() for entry in folder.iterdir()):
            shutil.rmtree(folder)
        else:
            remove(folder)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)
    parent.mkdir()
    return parent


def test_version_2_is_written_as_documented(unified: Path) -> None:
    """Controllers are enabled for the pool and for its sandboxes, limits and counters are those of version 2."""
    place = Hierarchy(2, unified, frozenset({"cpu", "memory", "pids"}))
    groups = open_groups(Hierarchies((place,)), frozenset({"memory", "pids"}))
    (pool,) = groups.folders
    for folder in (unified, pool):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids"
    group = groups.make("5", GroupLimits(memory_bytes=MIB, max_processes=9))
    written = {path.name: path.read_text() for path in (pool / "5").iterdir()}
    assert (written["memory.max"][:7], written["memory.swap.max"][:1]) == (str(MIB), "0")
    assert (written["pids.max"][:1], written["cpu.max"]) == ("9", "max 100000")
    assert group.counters() == Counters(2, 7, 4096)
    os.write(group.joins[0], b"0")
    assert (pool / "5" / "cgroup.procs").read_text() == "0"
    (pool / "5" / "cgroup.procs").write_text("77")
    group.kill()
    assert (pool / "5" / "cgroup.kill").read_text() == "1"
    group.remove()
    groups.close()
    assert not pool.exists()


def test_leaf_is_entered_before_the_group_is_divided(unified: Path) -> None:
    """A process that has the group alone goes into a leaf, without which the system would refuse (EBUSY)."""
    place = Hierarchy(2, unified, frozenset({"memory", "pids"}), must_move=True)
    open_groups(Hierarchies((place,)), frozenset({"memory", "pids"})).close()
    assert (unified / LEAF / "cgroup.procs").read_text() == "0"
    assert (unified / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_old_kernel_without_peak(unified: Path) -> None:
    """A counter that this kernel does not have is None."""
    groups = open_groups(Hierarchies((Hierarchy(2, unified, frozenset({"pids"})),)), frozenset({"pids"}))
    group = groups.make("0", GroupLimits(max_processes=5))
    assert group.counters() == Counters(n_denied_forks=7)
    groups.close()
    group.remove()


# -- the real thing


@pytest.fixture(name="real", scope="module")
def _real() -> Hierarchies:
    found = find()
    if not {"memory", "pids"} <= found.controllers:
        pytest.skip(f"no control groups can be written here: {dict(found.missing)}")
    return try_out(found)


@pytest.fixture(name="groups")
def _groups(real: Hierarchies) -> Iterator[Groups]:
    groups = open_groups(real, frozenset({"memory", "pids"}))
    yield groups
    groups.close()
    assert groups.folders == []


@contextmanager
def _joined(group: Group, code: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that joins the group, runs the code, says `ready` and sleeps; wait for that word."""
    start = f"import os\nfor fd in {group.joins}: os.write(fd, b'0')\n"
    try:
        with _ready(start + code, group.joins) as process:
            yield process
    finally:
        group.kill()


@contextmanager
def _ready(code: str, descriptors: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    whole = f"""
try:
    exec({code!r})
    print("ready", flush=True)
except BaseException as error:
    print(repr(error), flush=True)
import time
time.sleep(100)
"""
    command = [sys.executable, "-c", whole]
    with subprocess.Popen(command, pass_fds=descriptors, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_trying_leaves_nothing(real: Hierarchies) -> None:
    """What was found works, and the trial has removed its groups."""
    assert {"memory", "pids"} <= real.controllers
    for place in real.places:
        for folder in place.parent.glob("kf-*"):
            assert not (folder / "try").exists()


def test_place_that_does_not_work_is_missing(tmp_path: Path) -> None:
    """A folder that looks right and takes no groups is reported with what the system said."""
    found = try_out(Hierarchies((Hierarchy(1, tmp_path, frozenset({"memory"})),)))
    assert found.places == ()
    assert "does not take groups" in found.missing["memory"]
    assert list(tmp_path.iterdir()) == []


def test_memory_is_bounded_in_all(groups: Groups) -> None:
    """What no limit of a process bounds, shared memory, ends in a kill that is counted; others live."""
    group = groups.make("0", GroupLimits(memory_bytes=64 * MIB))
    neighbour = groups.make("1", GroupLimits(memory_bytes=64 * MIB))
    code = """
import mmap
pid = os.fork()
if not pid:
    hog = mmap.mmap(-1, 200 << 20)
    for at in range(0, 200 << 20, 4096): hog[at] = 1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
"""
    with _joined(neighbour, ""), _joined(group, code):
        counted = group.counters()
        assert counted.n_oom_kills == 1
        assert 60 * MIB < (counted.peak_memory_bytes or 0) <= 64 * MIB
        assert neighbour.counters().n_oom_kills == 0
        for one in (group, neighbour):
            one.kill()
    group.remove()
    neighbour.remove()


def test_memory_of_a_group_is_what_is_free_in_it(groups: Groups) -> None:
    """A process finds out how little its own group leaves it, as in a container."""
    group = groups.make("0", GroupLimits(memory_bytes=300 * MIB))
    code = "from sandbox_pool.host.hierarchies import free_memory_bytes\nassert 2**26 < free_memory_bytes() < 300 * 2**20"
    with _joined(group, code):
        pass
    group.remove()


def test_processes_are_bounded_and_all_killed(groups: Groups) -> None:
    """Forks beyond the bound fail and are counted; kill() takes what left its session as well."""
    group = groups.make("0", GroupLimits(max_processes=10))
    code = """
n = 0
try:
    while n < 50:
        n += 1
        if not os.fork():
            os.setsid()
            import signal
            signal.pause()
except BlockingIOError:
    pass
assert n == 10
"""
    with _joined(group, code) as process:
        assert group.counters().n_denied_forks == 1
        group.kill()
        assert process.wait() == -signal.SIGKILL
    group.remove()
    group.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_other_users_join_by_our_descriptor(groups: Groups) -> None:
    """A process joins whoever it is by then: what counts is who opened the file."""
    group = groups.make("0", GroupLimits(memory_bytes=64 * MIB, max_processes=5))
    drop = (
        "import os\nos.setgroups([])\nos.setresgid(54321, 54321, 54321)\nos.setresuid(54321, 54321, 54321)\n"
    )
    join = f"for fd in {group.joins}: os.write(fd, b'0')\n"
    check = "assert all('kf-' in line for line in open('/proc/self/cgroup') if ':memory:' in line or ':pids:' in line)"
    with _ready(drop + join + check, group.joins):
        group.kill()
    group.remove()


def test_fork_bomb_is_killed(groups: Groups) -> None:
    """What forks as fast as it can is gone at once."""
    group = groups.make("0", GroupLimits(max_processes=200))
    with _joined(
        group, "if not os.fork():\n    while True:\n        try: os.fork()\n        except OSError: pass"
    ) as process:
        while not group.counters().n_denied_forks:
            time.sleep(0.01)
        group.kill()
        process.wait()
    group.remove()


def test_cores_are_bounded(real: Hierarchies) -> None:
    """A sandbox with a tenth of a core gets no more than that."""
    if "cpu" not in real.controllers:
        pytest.skip(f"cores cannot be bounded here: {real.missing['cpu']}")
    groups = open_groups(real, frozenset({"cpu"}))
    group = groups.make("0", GroupLimits(max_cores=0.1))
    burn = "import time\nend = time.monotonic() + 1\nstart = time.process_time()\n"
    burn += "while time.monotonic() < end: pass\nassert time.process_time() - start < 0.5"
    with _joined(group, burn):
        pass
    group.remove()
    groups.close()


def test_abandoned_groups_are_removed(real: Hierarchies, groups: Groups) -> None:
    """What a killed pool left is removed with what lives in it; what is in use or no pool's stays."""
    used = groups.make("0", GroupLimits(max_processes=5))
    parent = groups.folders[-1].parent
    left, foreign = parent / "kf-0123abcd", parent / "kf-of-others"
    for folder in (left, left / "3", foreign):
        folder.mkdir()
    try:
        code = f"open({str(left / '3' / 'cgroup.procs')!r}, 'w').write('0')\n"
        with _ready(code) as process:
            remove_abandoned(parent)
            assert process.wait() == -signal.SIGKILL
        assert not left.exists()
        assert foreign.exists()
        assert used.counters().n_denied_forks == 0
        assert groups.folders[-1].exists()
    finally:
        foreign.rmdir()
        used.remove()


def test_remove_kills_what_is_left(groups: Groups) -> None:
    """What has escaped every other way of ending a sandbox does not outlive its group."""
    group = groups.make("0", GroupLimits(max_processes=5))
    with _joined(group, "os.setsid()") as process:
        group.remove()
        assert process.wait() == -signal.SIGKILL
    assert not (groups.folders[-1] / "0").exists()


def test_no_descriptor_is_left(groups: Groups) -> None:
    """A group gives back all that it opened, also when it could not be made."""
    before = len(list(Path("/dev/fd").iterdir()))
    groups.make("0", GroupLimits(memory_bytes=MIB, max_processes=5)).remove()
    kept = groups.make("1", GroupLimits(max_processes=5))
    with pytest.raises(OSError, match="exists"):
        groups.make("1", GroupLimits(memory_bytes=MIB, max_processes=5))
    kept.remove()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_version_2_kills_at_one_word(tmp_path: Path) -> None:
    """Where version 2 is mounted, with whichever controllers, all of a group is killed by cgroup.kill."""
    unified = next((mount for mount in read_mounts(Path("/proc/self")) if mount.version == 2), None)
    if unified is None or not os.access(unified.own, os.W_OK):
        pytest.skip("version 2 is not mounted here, or not ours to write")
    folder, lock = locked_folder(unified.own)
    try:
        join = f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0')\n"
        with _ready(join + "import os\nif not os.fork(): os.setsid()") as process:
            kill(folder, frozenset())
            assert process.wait() == -signal.SIGKILL
    finally:
        remove_pool(folder)
        os.close(lock)
    assert not folder.exists()


def test_only_wanted_hierarchies_are_joined(groups: Groups) -> None:
    """What is not limited costs no join."""
    group = groups.make("0", GroupLimits())
    assert (group.joins, group.counters()) == ([], Counters())
    group.remove()


def test_own_groups_are_read() -> None:
    """On any machine the search ends without an error, and names each controller once."""
    found = find()
    for name in hierarchies.CONTROLLERS:
        assert (name in found.controllers) is not (name in found.missing)
