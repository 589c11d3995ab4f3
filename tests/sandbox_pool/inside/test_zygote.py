"""Keeper and zygote: settings that cannot be met, what happens when one of them dies, the other tiers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_pool.inside.landlock import abi
from tests.sandbox_pool.inside import driver
from tests.sandbox_pool.inside.driver import Box, Keeper, settings

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="the driver reads /proc"),
]

ON_HOST = ["process", *(["landlock"] if abi() else [])]
TIERS = ["namespace", *ON_HOST]
IS_ROOT = os.geteuid() == 0


class Scratch:
    """Folders for the sandboxes of the tiers that have none of their own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kf-test-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.n = 0

    def start(self, tier: str) -> dict[str, Any]:
        """Return what a start line needs in this tier."""
        if tier == "namespace":
            return {}
        self.n += 1
        uid = 300_000 + 2 * self.n if IS_ROOT else None
        work = self.folder / str(self.n)
        for folder in (work, work / "work", work / "home", work / "tmp"):
            folder.mkdir(mode=0o700)
            if uid is not None:
                os.chown(folder, uid, uid)
        return {"work": str(work), "uid": uid, "killer_uid": None if uid is None else uid + 1}


class Setup:
    """A keeper of one tier, and what its sandboxes are started with."""

    def __init__(self, tier: str, **changes: Any) -> None:
        self.tier = tier
        self.scratch = Scratch()
        changes = {"tier": tier, "scratch": str(self.scratch.folder), **changes}
        self.keeper = Keeper(settings(**changes))

    def fork(self, **start: Any) -> Box:
        """Fork a sandbox and return it when its kernel is ready."""
        return self.keeper.fork(**self.scratch.start(self.tier), **start)


@pytest.fixture(name="setup", params=TIERS)
def _setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    setup = Setup(request.param)
    assert setup.keeper.greeting is not None
    assert "ready" in setup.keeper.greeting, (setup.keeper.greeting, setup.keeper.said())
    yield setup
    setup.keeper.close()
    shutil.rmtree(setup.scratch.folder, ignore_errors=True)  # which no keeper removed when it was killed


def refusal(**changes: Any) -> dict[str, Any]:
    """Return what a keeper answers to settings that cannot be met, when it has ended."""
    keeper = Keeper(settings(**changes))
    answer = keeper.greeting
    code = keeper.close()
    assert answer is not None
    assert "error" in answer, answer
    assert code in (0, 1)  # who hung up first
    return answer


# -- every tier


def test_sandboxes_run_and_end(setup: Setup) -> None:
    """A sandbox runs cells in its own folder, is interrupted, says how its kernel ended, and leaves nothing."""
    box = setup.fork()
    assert box.run("open('f', 'w').write('x'), __import__('os').listdir('.')") == "(1, ['f'])"
    tree = [box.init_pid, *driver.descendants(box.init_pid)]
    assert box.run("import os; os._exit(7)").endswith("<end>")
    assert box.control.hear() == {"exit": 7}
    box.wait_until_gone()
    assert not [pid for pid in tree if driver.is_alive(pid)]
    box.close()


def test_daemons_end_with_their_sandbox(setup: Setup) -> None:
    """What left its session and its parent is killed with the sandbox, and only that."""
    box, neighbour = setup.fork(), setup.fork()
    box.run("import subprocess\nsubprocess.Popen(['setsid', '-f', 'sleep', '1000'], stderr=-3)")
    box.run("subprocess.Popen(['setsid', '-f', 'sh', '-c', 'while :; do sleep 0.01 & done'], stderr=-3)")
    assert driver.wait_until(lambda: len(driver.descendants(box.init_pid)) >= 3)
    tree = driver.descendants(box.init_pid)
    box.close()
    assert not [pid for pid in tree if driver.is_alive(pid)]
    assert neighbour.run("1 + 1") == "2"
    neighbour.close()


def test_signals_from_outside_end_nothing(setup: Setup) -> None:
    """SIGTERM and SIGINT to every process of the tree leave all of them alive."""
    box = setup.fork()
    for pid in [setup.keeper.process.pid, *driver.descendants(setup.keeper.process.pid)]:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert box.run("1 + 1") == "2"
    box.close()


@pytest.mark.parametrize("victim", ["keeper", "zygote", "socket"])
def test_everything_ends(setup: Setup, victim: str) -> None:
    """Whoever of manager, keeper and zygote goes first, no process is left; the keeper takes the scratch."""
    boxes = [setup.fork() for _ in range(3)]
    boxes[0].run("import subprocess\nsubprocess.Popen(['setsid', '-f', 'sleep', '1000'])")
    keeper = setup.keeper.process.pid
    assert driver.wait_until(lambda: len(driver.descendants(keeper)) >= 8)  # zygote, inits, kernels, sleep
    tree = driver.descendants(keeper)
    started_at = time.monotonic()
    if victim == "socket":
        setup.keeper.talk.end.close()
    else:
        os.kill(
            keeper if victim == "keeper" else setup.keeper.zygote_pid(boxes[0]),
            signal.SIGKILL,
        )
    setup.keeper.process.wait(10)
    assert driver.wait_until(lambda: not any(driver.is_alive(pid) for pid in tree), 5)
    assert time.monotonic() - started_at < 5
    assert setup.scratch.folder.exists() == (victim == "keeper")
    for box in boxes:
        box.close()


def test_many_requests(setup: Setup) -> None:
    """A zygote keeps neither descriptors nor processes of sandboxes that are gone."""
    box = setup.fork()
    zygote = setup.keeper.zygote_pid(box)
    n_before = len(list(Path(f"/proc/{zygote}/fd").iterdir()))
    for _ in range(10):
        setup.fork().close()
    assert len(list(Path(f"/proc/{zygote}/fd").iterdir())) == n_before
    assert driver.descendants(zygote) == [box.init_pid, box.kernel_pid]
    box.close()


def test_limits_hold(setup: Setup) -> None:
    """Resource limits are those of the settings, also where a raised one is asked back."""
    box = setup.fork()
    cell = "import resource as r; [r.getrlimit(n) for n in (r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_NPROC)]"
    assert box.run(cell) == "[(256, 256), (0, 0), (64, 64)]"
    box.close()


def test_a_kernel_that_cannot_start_is_told(setup: Setup) -> None:
    """An init that fails says why over its own socket, and the zygote goes on."""
    with pytest.raises(RuntimeError, match="workspace"):
        setup.keeper.fork(**{**setup.scratch.start(setup.tier), "workspace": "none"})
    box = setup.fork()
    assert box.run("1 + 1") == "2"
    box.close()


def test_an_end_before_the_start_line(setup: Setup) -> None:
    """A manager that goes away between fork and start leaves nothing."""
    box = setup.fork()
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    request = json.dumps({"fork": 1, "listeners": 0, "cgroups": 0}).encode() + b"\n"
    socket.send_fds(setup.keeper.talk.end, [request], [theirs.fileno(), null, null, null])
    answer = setup.keeper.talk.hear()
    assert answer is not None
    assert "pid" in answer
    pidfd = setup.keeper.talk.take()[0]
    theirs.close()
    ours.close()
    assert driver.is_readable([pidfd], 5)
    os.close(pidfd)
    os.close(null)
    box.close()


# -- root and landlock


@pytest.mark.skipif(not IS_ROOT, reason="takes root to give sandboxes uids")
@pytest.mark.parametrize("tier", ON_HOST)
def test_uids_of_sandboxes(tier: str) -> None:
    """Started as root, each kernel has a uid of its own, and its guardian cannot be signalled from it."""
    setup = Setup(tier)
    box = setup.fork()
    assert set(driver.status(box.kernel_pid)["Uid"].split()) == {"300002"}
    assert "PermissionError" in box.run("import os; os.kill(os.getppid(), 0)")
    box.close()
    setup.keeper.close()


@pytest.mark.skipif(not abi(), reason="this kernel has no Landlock")
def test_landlock_confines_the_kernel() -> None:
    """In the landlock tier the host's files, network and processes are out of reach, from programs too."""
    setup = Setup("landlock")
    box = setup.fork()
    for cell in (f"open({__file__!r})", "open('/etc/hostname')", "import os; os.listdir('/')", "open('/tmp/kf-none', 'w')",
                 f"open('/proc/{os.getpid()}/environ')", "import os; os.memfd_create('x')"):  # fmt: skip
        assert "PermissionError" in box.run(cell), cell
    assert "not supported" in box.run("import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "denied" in box.run("import subprocess; subprocess.getoutput('ls / 2>&1')")
    assert driver.status(box.kernel_pid)["Seccomp"] == "2"
    box.close()
    setup.keeper.close()


# -- cgroups


@pytest.mark.skipif(
    not os.access("/sys/fs/cgroup/pids", os.W_OK), reason="no pids cgroup (v1) can be made here"
)
def test_cgroups() -> None:
    """The kernel joins its cgroup before it runs anything; the keeper removes what the manager left."""
    top = Path(f"/sys/fs/cgroup/pids/kf-test-{os.getpid()}")
    (top / "one").mkdir(parents=True)
    keeper = Keeper(settings(cgroups=[str(top)]))
    descriptor = os.open(top / "one" / "cgroup.procs", os.O_WRONLY)
    box = keeper.fork(cgroups=(descriptor,))
    os.close(descriptor)
    members = (top / "one" / "cgroup.procs").read_text().split()
    assert members == [str(box.kernel_pid)]
    keeper.talk.end.close()
    keeper.process.wait(10)
    assert not top.exists()
    box.close()
    keeper.log.close()


# -- settings that cannot be met


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('broken')", ["trial", "ImportError: broken", "preload list"]),
        ("import sys; sys.exit(3)", ["trial", "SystemExit"]),
        ("import os; os._exit(4)", ["trial", "exit code 4"]),
        ("import ctypes; ctypes.string_at(0)", ["trial", "SIGSEGV"]),
        ("import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", ["trial", "thread"]),
    ],
)  # fmt: skip
def test_preload_module_that_fails(source: str, words: list[str]) -> None:
    """A configured module that cannot be loaded is an error that names it, however it fails."""
    folder = Path(tempfile.mkdtemp(prefix="kf-test-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "trial.py").write_text(source)
    answer = refusal(preload=["trial"], extra_paths=[str(folder)])
    shutil.rmtree(folder)
    assert answer["kind"] == "preload"
    for word in words:
        assert word in answer["error"], answer


def test_preload_list_of_ours() -> None:
    """A module of the default list that is not installed is skipped and named; a configured one is an error."""
    with Keeper(settings(preload=["no_such_module", "decimal"], preload_optional=True)) as keeper:
        assert keeper.greeting is not None
        assert keeper.greeting["skipped"] == ["no_such_module"]
        assert keeper.greeting["modules"] == ["decimal"]
    assert "no_such_module" in refusal(preload=["no_such_module"])["error"]


def test_interpreter_without_ipython() -> None:
    """An interpreter that lacks what a kernel needs is an error that says what to install."""
    found = driver.python_of_users()
    if found is None or not found[1]:
        pytest.skip("no interpreter without IPython here")
    keeper = Keeper(settings(), python=found[0])
    assert keeper.greeting is not None
    assert keeper.greeting["kind"] == "setup"
    assert "install ipython" in keeper.greeting["error"]
    keeper.close()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mounts": [["/no/such/folder", "/data"]]}, "/no/such/folder"),
        ({"mounts": [["/usr", "/proc/x"]]}, "/proc/x"),
        ({"mounts": [["/usr", "/usr/no-such-place"]]}, "/usr/no-such-place"),
        ({"mounts": [["/usr", "relative"]]}, "relative"),
        ({"mounts": [["/usr", "/"]]}, "absolute path"),
        ({"extra_paths": ["/no/such/wheels"]}, "/no/such/wheels"),
        ({"workspaces": "/no/such/workspaces"}, "/no/such/workspaces"),
    ],
)
def test_what_is_to_be_shown_is_not_there(changes: dict[str, Any], word: str) -> None:
    """A mount without source or place is an error that names it; nothing is made on the host."""
    answer = refusal(**changes)
    assert answer["kind"] == "setup"
    assert word in answer["error"]
    assert not Path("/usr/no-such-place").exists()


@pytest.mark.skipif(not IS_ROOT, reason="is about being root")
@pytest.mark.parametrize("uid", [None, 0])
def test_root_must_say_which_uid(uid: int | None) -> None:
    """Started as root, a zygote without an ordinary uid to drop to is refused."""
    answer = refusal(uid=uid)
    assert answer["kind"] == "setup"
    assert "uid" in answer["error"]


FORBID = f"""
import os, sys
sys.path.insert(0, {str(driver.INSIDE.parents[1])!r})
from sandbox_pool.inside import seccomp, syscalls
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
seccomp.Filter(families=seccomp.FAMILIES, deny_memfd=True).install()
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("started_as", ["root", "user"] if IS_ROOT else ["user"])
def test_namespaces_are_refused(started_as: str) -> None:
    """In a container that forbids namespaces the answer is `unsupported`, with what would help."""
    python, uid = sys.executable, driver.UID if started_as == "root" else None
    prefix: tuple[str, ...] = (sys.executable, "-c", FORBID)
    if started_as == "user" and IS_ROOT:
        found = driver.python_of_users()
        if found is None:
            pytest.skip("no interpreter that ordinary users can run")
        python, prefix = found[0], (*prefix, *driver.USER)
    keeper = Keeper(settings(uid=uid), python=python, prefix=prefix)
    answer = keeper.greeting
    assert answer is not None, keeper.said()
    keeper.close()
    assert answer["kind"] == "unsupported", answer
    assert "seccomp" in answer["error"]
    assert "landlock" in answer["error"]


@pytest.mark.skipif(not IS_ROOT, reason="is about being root")
def test_root_of_a_single_uid() -> None:
    """The root of a user namespace that maps no other uid is told so."""
    keeper = Keeper(settings(), prefix=("unshare", "--user", "--map-root-user"))
    answer = keeper.greeting
    assert answer is not None, keeper.said()
    keeper.close()
    assert answer["kind"] == "unsupported", answer
    assert "map" in answer["error"]


def test_too_many_processes() -> None:
    """When the system has no process to give, the fork fails and the zygote goes on."""
    found = driver.python_of_users()
    if found is None or not IS_ROOT:
        pytest.skip("takes root, and an interpreter that ordinary users can run")
    python, packages = found
    prefix = ("prlimit", "--nproc=9", *(part.replace("54321", "54322") for part in driver.USER))
    with Keeper(settings(uid=None, extra_paths=packages), python=python, prefix=prefix) as keeper:
        boxes: list[Box] = []
        with pytest.raises((RuntimeError, AssertionError)):
            boxes.extend(keeper.fork() for _ in range(9))
        assert 0 < len(boxes) < 5
        boxes.pop().close()
        box = keeper.fork()
        assert box.run("1 + 1") == "2"
        for each in (box, *boxes):
            each.close()


def test_no_settings() -> None:
    """A manager that goes away at once, or talks nonsense, leaves no keeper."""
    for said, code in ((b"", 0), (b"nonsense\n", 1)):
        import subprocess

        command = [sys.executable, "-s", str(driver.INSIDE / "boot.py")]
        done = subprocess.run(command, input=said, capture_output=True, timeout=20, check=False)
        assert done.returncode == code, done.stderr
