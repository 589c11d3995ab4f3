"""A sandbox of the namespace tier, from the inside and the outside; started as root and as an ordinary user."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox_pool.inside import driver
from tests.sandbox_pool.inside.driver import Box, Keeper, settings, status

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]

STARTED_AS = ["root", "user"] if os.geteuid() == 0 else ["user"]


def open_keeper(started_as: str, **changes: Any) -> Keeper:
    """Start a keeper as root or as somebody."""
    if started_as == "root":
        return Keeper(settings(**changes))
    found = driver.python_of_users()
    if found is None:
        pytest.skip("no interpreter of this version that ordinary users can run")
    python, packages = found
    given = settings(uid=None, **{**changes, "extra_paths": [*packages, *changes.get("extra_paths", [])]})
    return Keeper(given, python=python, prefix=driver.USER if os.geteuid() == 0 else ())


@pytest.fixture(name="keeper", scope="module", params=STARTED_AS)
def _keeper(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with open_keeper(request.param) as keeper:
        assert keeper.greeting is not None
        assert keeper.greeting.get("ready"), (keeper.greeting, keeper.said())
        yield keeper


@pytest.fixture(name="box")
def _box(keeper: Keeper) -> Iterator[Box]:
    box = keeper.fork()
    yield box
    box.close()


# -- from the outside


def test_no_process_is_the_hosts_root(keeper: Keeper, box: Box) -> None:
    """Zygote, init and kernel are an ordinary user of the host, without a single capability."""
    expected = {str(driver.UID), "54321", str(os.geteuid() or "")} - {""}
    zygote = int(status(box.init_pid)["PPid"])
    for pid in (zygote, box.init_pid, box.kernel_pid):
        uids = set(status(pid)["Uid"].split()) | set(status(pid)["Gid"].split())
        assert uids <= expected, (pid, uids)
        assert "0" not in uids
    for pid in (box.init_pid, box.kernel_pid):
        for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status(pid)[field], 16) == 0, (pid, field)
        assert status(pid)["NoNewPrivs"] == "1"
        assert status(pid)["Seccomp"] == "2"


def test_every_namespace_is_its_own(keeper: Keeper, box: Box) -> None:
    """No namespace is shared with the host or with a neighbour."""
    neighbour = keeper.fork()
    seen = [driver.namespaces(pid) for pid in (os.getpid(), box.kernel_pid, neighbour.kernel_pid)]
    neighbour.close()
    for name in seen[0]:
        assert len({names[name] for names in seen}) == 3, name
    assert driver.namespaces(box.init_pid) == driver.namespaces(box.kernel_pid)


def test_the_system_takes_a_sandbox_before_the_manager(box: Box) -> None:
    """Out of memory, the host's kernel looks at sandboxes first."""
    assert int(Path(f"/proc/{box.kernel_pid}/oom_score_adj").read_text()) >= 500


def test_environments_hold_no_secrets(keeper: Keeper, box: Box) -> None:
    """Neither keeper, zygote, init nor kernel has a variable of this process but those it was given."""
    allowed = {*driver.ENVIRONMENT, "LC_CTYPE"}
    for pid in (keeper.process.pid, int(status(box.init_pid)["PPid"]), box.init_pid, box.kernel_pid):
        names = {entry.partition("=")[0] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")}
        assert names - {""} <= allowed


def test_signals_from_outside_do_nothing(keeper: Keeper, box: Box) -> None:
    """A Ctrl-C or a SIGTERM to the whole tree ends no sandbox and interrupts no cell."""
    tree = [keeper.process.pid, *driver.descendants(keeper.process.pid)]
    assert box.kernel_pid in tree
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        for pid in tree:
            if pid != box.kernel_pid or number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
    assert box.run("1 + 1") == "2"
    assert keeper.process.poll() is None


def test_work_folder_outlives_the_processes(box: Box) -> None:
    """The descriptor of the working directory still reads what was written there after the kill."""
    box.run("open('made.txt', 'w').write('kept')")
    box.kill()
    assert box.work is not None
    with os.fdopen(os.open("made.txt", os.O_RDONLY, dir_fd=box.work)) as file:
        assert file.read() == "kept"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("import os; os._exit(3)", 3), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9)],
)
def test_the_kernels_end_is_told(box: Box, cell: str, expected: int) -> None:
    """Init says how the kernel ended, and then everything has."""
    assert box.run(cell).endswith("<end>")
    assert box.control.hear() == {"exit": expected}
    box.wait_until_gone()


def test_nothing_outlives_init(box: Box) -> None:
    """A daemon that left its session, and a loop that forks on and on, are gone when init is."""
    box.run("import subprocess\nsubprocess.Popen(['setsid', '-f', 'sleep', '1000'])")
    # Not as fast as it can: the shell ends when it is refused a process.
    box.run("subprocess.Popen(['sh', '-c', 'while :; do sleep 0.05 & sleep 0.005; done'])")
    assert driver.wait_until(lambda: len(driver.descendants(box.init_pid)) >= 3)
    tree = driver.descendants(box.init_pid)
    started_at = time.monotonic()
    box.kill()
    assert time.monotonic() - started_at < 5
    assert not [pid for pid in tree if driver.is_alive(pid)]


def test_interrupt(box: Box) -> None:
    """Init's interrupt reaches a cell, and the kernel lives on."""
    box.channel.sendall(_request("import time\nprint('on', flush=True)\ntime.sleep(30)"))
    while box.frame()[0] != b"o":
        pass
    box.interrupt()
    while b"KeyboardInterrupt" not in box.frame()[1]:
        pass
    while b'"idle"' not in box.frame()[1]:
        pass
    assert box.run("1 + 1") == "2"


def _request(code: str) -> bytes:
    import json
    import struct

    payload = b"execute_request\0m0\0" + json.dumps({"code": code}).encode()
    return b"x" + struct.pack(">I", len(payload)) + payload


def test_orphans_are_collected(box: Box) -> None:
    """A thousand orphans leave no zombie in the sandbox."""
    box.run(
        "import subprocess\nsubprocess.run(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9; do (sleep 0 &) ; done'])"
    )
    zombies = "[p for p in os.listdir('/proc') if p.isdigit() and ' Z ' in open(f'/proc/{p}/stat').read()]"
    assert driver.wait_until(lambda: box.run(f"import os; {zombies}") == "[]")


# -- from the inside


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/root/.bashrc", "/home", "/var/log", str(Path(__file__)), str(driver.INSIDE.parent / "pool.py"),
     str(driver.INSIDE.parents[1] / "pyproject.toml"), "/dev/sda", "/dev/mem", "/dev/ptmx", "/sys/kernel", "/run/user"],
)  # fmt: skip
def test_the_host_is_not_there(box: Box, path: str) -> None:
    """What no program needs does not exist, not even by name."""
    assert box.run(f"import os; os.path.lexists({path!r})") == "False"


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("open('/x', 'w')", "Read-only"),
        ("open('/usr/x', 'w')", "Read-only"),
        ("open('/etc/x', 'w')", "Read-only"),
        ("open('/dev/x', 'w')", "Read-only"),
        ("import os, sys; open(os.path.join(sys.prefix, 'x'), 'w')", "Read-only"),
        ("open('/proc/sys/kernel/core_pattern', 'w')", "Permission"),
        ("open('/proc/sys/kernel/hostname', 'w')", "Permission"),
        ("open('/proc/sys/net/ipv4/ip_forward', 'w')", "Permission"),
        ("open('/proc/sys/kernel/panic', 'w')", "Permission"),
        ("open('/proc/1/environ').read()", "Permission"),
        ("open('/proc/1/mem', 'rb')", "Permission"),
        ("import os; os.listdir('/proc/1/fd')", "Permission"),
        ("import os; os.readlink('/proc/1/root')", "Permission"),
        ("import os; os.mknod('d', 0o020600, 259)", "not permitted"),
        ("import os; os.chroot('/usr')", "not permitted"),
        ("import os; os.setuid(0)", "Invalid argument"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 2)", "unreachable"),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))", "unreachable"),
        ("import socket; socket.socket(40, 1)", "not supported"),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "not permitted"),
        ("import socket; socket.sethostname('x')", "not permitted"),
        ("import os; os.memfd_create('x')", "not permitted"),
        ("import os; os.nice(-1)", "denied|not permitted"),
        ("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))", "maximum limit"),
    ],
)  # fmt: skip
def test_refused(box: Box, cell: str, error: str) -> None:
    """What would reach beyond the sandbox fails, and the kernel goes on."""
    import re

    said = box.run(cell)
    assert re.search(error, said), said
    assert box.run("1 + 1") == "2"


@pytest.mark.parametrize("flag", ["0x10000000", "0x00020000", "0x20000000", "0x40000000", "0x00000080"])
def test_no_namespaces_below(box: Box, flag: str) -> None:
    """Code in a sandbox makes no user, mount, pid, network or time namespace of its own."""
    cell = (
        f"import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.unshare({flag}), ctypes.get_errno())"
    )
    assert box.run(cell) == "-1 1\n"


def test_what_programs_need(box: Box) -> None:
    """Programs, pools, temporary files, shared memory, loopback and a fresh interpreter work."""
    assert box.run("import os; os.system('id -un; hostname; pwd')") == "0sandbox\nsandbox\n/sandbox/work\n"
    assert box.run("import tempfile; tempfile.NamedTemporaryFile().name").startswith("'/sandbox/tmp/")
    assert (
        box.run("import multiprocessing\nwith multiprocessing.Pool(2) as p: print(p.map(abs, [-1]))")
        == "[1]\n"
    )
    cell = "from multiprocessing.shared_memory import SharedMemory as S\ns = S(create=True, size=9); s.unlink(); s.close()"
    assert box.run(cell) == ""
    assert (
        box.run(
            "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()"
        )
        == ""
    )
    assert (
        box.run("import subprocess, sys; subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'])")
        == "b'42\\n'"
    )
    assert (
        box.run("os.environ['HOME'], os.path.expanduser('~'), os.getcwd()")
        == "('/sandbox/home', '/sandbox/home', '/sandbox/work')"
    )
    assert box.run("open('/tmp/x', 'w').write('1'), os.path.realpath('/tmp/x')") == "(1, '/sandbox/tmp/x')"


def test_no_descriptor_is_inherited(box: Box) -> None:
    """A program that the code starts has 0, 1, 2 and what it opens itself."""
    assert (
        box.run("import subprocess; subprocess.check_output(['ls', '/proc/self/fd'], close_fds=False)")
        == r"b'0\n1\n2\n3\n'"
    )


def test_quota(box: Box) -> None:
    """Bytes and files are bounded, in sum over all folders that can be written."""
    for folder in ("/sandbox/work", "/sandbox/tmp", "/dev/shm", "/sandbox"):
        assert "No space left" in box.run(f"open('{folder}/f', 'wb').write(bytes(80 << 20))"), folder
        box.run(f"import os; os.unlink('{folder}/f')")
    assert "No space left" in box.run("for n in range(3000): open(f'n{n}', 'w').close()")
    assert 1500 < int(box.run("len(os.listdir('.'))")) < 2000


def test_process_limit_is_per_sandbox(keeper: Keeper) -> None:
    """Two sandboxes of one uid have their own number of processes each."""
    boxes = [keeper.fork(), keeper.fork()]
    cell = (
        "import subprocess\nps = []\ntry:\n  while True: ps.append(subprocess.Popen(['sleep', '100']))\n"
        "except BlockingIOError: print(len(ps))"
    )
    counts = [int(box.run(cell)) for box in boxes]
    for box in boxes:
        box.close()
    assert all(55 <= count <= 64 for count in counts), counts


def test_seeds_and_pids_do_not_pass_between_sandboxes(keeper: Keeper) -> None:
    """Each sandbox sees only its own processes."""
    boxes = [keeper.fork(), keeper.fork()]
    seen = [box.run("import os; [p for p in os.listdir('/proc') if p.isdigit()]") for box in boxes]
    for box in boxes:
        box.close()
    assert seen == ["['1', '2']", "['1', '2']"]


# -- what settings change


@pytest.fixture(name="public")
def _public() -> Iterator[Path]:
    """A folder that every user can read; pytest's own are closed."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="kf-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("started_as", STARTED_AS)
def test_mounts_extra_paths_and_hidden(started_as: str, public: Path) -> None:
    """Mounts are read-only at their targets, wheels are importable, hidden folders are empty."""
    (public / "data").mkdir()
    (public / "data" / "rows.csv").write_text("1,2")
    (public / "data" / "rows.csv").chmod(0o666)
    (public / "data" / "private").mkdir()
    (public / "data" / "private" / "key").write_text("k")
    (public / "wheels").mkdir()
    (public / "wheels" / "mine.py").write_text("value = 41")
    _make_wheel(public / "wheels" / "yours-1-py3-none-any.whl")
    changes = {
        "mounts": [[str(public / "data"), "/data/set"], [str(public / "data" / "rows.csv"), "/rows.csv"]],
        "extra_paths": [str(public / "wheels")],
        "hidden": [str(public / "data" / "private"), "/usr/share/zoneinfo", str(public / "nowhere")],
    }
    with open_keeper(started_as, **changes) as keeper:
        assert keeper.greeting is not None
        assert "ready" in keeper.greeting, keeper.greeting
        box = keeper.fork()
        assert box.run("print(open('/data/set/rows.csv').read(), open('/rows.csv').read())") == "1,2 1,2\n"
        assert "Read-only" in box.run("open('/data/set/rows.csv', 'a')")
        assert (
            box.run("import os; os.listdir('/data/set/private'), os.listdir('/usr/share/zoneinfo')")
            == "([], [])"
        )
        assert box.run("import mine, yours; mine.value + yours.value") == "42"
        box.close()


def _make_wheel(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("yours.py", "value = 1")


@pytest.mark.parametrize("started_as", STARTED_AS)
def test_workspaces(started_as: str, public: Path) -> None:
    """A sandbox sees the workspace that it was started with, made after the zygote, and no other."""
    with open_keeper(started_as, workspaces=str(public)) as keeper:
        for name in ("one", "two"):
            (public / name).mkdir()
            (public / name / "file").write_text(name)
            (public / name / "file").chmod(0o666)
        box = keeper.fork(workspace="two")
        assert box.run("open('workspace/file').read(), open('/workspace/file').read()") == "('two', 'two')"
        assert "Read-only" in box.run("open('workspace/file', 'w')")
        assert box.run("import os; os.listdir('/workspaces')") == "[]"
        box.close()
        box = keeper.fork()
        assert (
            box.run("import os; os.listdir('/workspaces'), os.listdir('/workspace'), os.listdir('.')")
            == "([], [], [])"
        )
        box.close()
        for name in ("three", "../one", "", ".."):
            with pytest.raises(RuntimeError, match="there is no workspace"):
                keeper.fork(workspace=name)


@pytest.mark.parametrize("started_as", STARTED_AS)
def test_network_of_the_host(started_as: str) -> None:
    """With `network: host` the host's sockets are reachable; nothing else changes."""
    import socket

    with open_keeper(started_as, network="host") as keeper, socket.create_server(("127.0.0.1", 0)) as server:
        box = keeper.fork()
        assert (
            box.run(
                f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).close()"
            )
            == ""
        )
        assert driver.namespaces(box.kernel_pid)["net"] == driver.namespaces("self")["net"]
        assert (
            box.run("import os; os.environ.get('PIP_NO_INDEX'), os.path.exists('/etc/resolv.conf')")
            == "(None, True)"
        )
        box.close()


def test_hidden_packages_of_the_interpreter() -> None:
    """A package that is installed beside IPython, as ours is from a wheel, is empty when it is hidden."""
    folder = Path(pytest.__file__).parent
    if STARTED_AS[0] != "root" and not driver.is_open(folder):
        pytest.skip("the interpreter's packages cannot be read by every user")
    given = settings(hidden=[str(folder)], uid=driver.UID if os.geteuid() == 0 else None)
    with Keeper(given) as keeper:
        assert keeper.greeting is not None
        assert "ready" in keeper.greeting, keeper.greeting
        box = keeper.fork()
        assert box.run(f"import os; os.listdir({str(folder)!r})") == "[]"
        assert "has no attribute" in box.run("import pytest; pytest.fixture")
        box.close()


def test_hidden_around_the_interpreter(public: Path) -> None:
    """A project that is hidden is, but for the virtual environment that lies in it."""
    prefix = Path(sys.prefix)
    if len(prefix.parts) < 3 or STARTED_AS[0] != "root":
        pytest.skip("needs root, and an interpreter in a project's folder")
    changes = {"mounts": [[str(prefix.parent), str(prefix.parent)]], "hidden": [str(prefix.parent)]}
    with Keeper(settings(**changes)) as keeper:
        assert keeper.greeting is not None
        assert "ready" in keeper.greeting, keeper.greeting
