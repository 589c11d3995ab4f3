"""Landlock's rules, each test in a process that is confined and thrown away."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_pool.inside import interpreter, landlock
from sandbox_pool.inside.landlock import Rules, abi, accesses
from sandbox_pool.inside.syscalls import PR_SET_NO_NEW_PRIVS, prctl
from tests.sandbox_pool.inside.driver import in_child, settings

pytestmark = pytest.mark.skipif(abi() < 1, reason="this kernel has no Landlock")

Confine = Callable[..., None]


@pytest.fixture(name="work")
def _work(tmp_path: Path) -> Path:
    for name in ("work", "home", "tmp"):
        (tmp_path / "own" / name).mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text("s")
    return tmp_path / "own"


@pytest.fixture(name="confine")
def _confine(work: Path) -> Confine:
    def confine(*, workspace: Path | None = None, network: bool = False, **changes: object) -> None:
        rules = Rules(settings(tier="landlock", **changes), has_network=network)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        rules.restrict(str(work), None if workspace is None else str(workspace))

    return confine


def test_own_folder_can_be_written_and_nothing_else(work: Path, confine: Confine) -> None:
    """Files are made, moved and removed below the own folder, and refused everywhere else."""

    def confined() -> None:
        confine()
        (work / "work" / "a").write_text("a")
        (work / "work" / "a").rename(work / "tmp" / "b")
        (work / "tmp" / "b").unlink()
        os.mkfifo(work / "work" / "fifo")
        for path in ("/tmp/kf-x", "/dev/shm/kf-x", "/usr/kf-x", "/etc/kf-x", work.parent / "x"):
            with pytest.raises(PermissionError):
                Path(path).write_text("x")

    in_child(confined)


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/hostname", "/root", "/home", "/", "/proc", "/tmp", "/var/log"]
)
def test_the_host_cannot_be_read(confine: Confine, path: str) -> None:
    """Neither its secrets nor its names."""

    def confined() -> None:
        confine()
        with pytest.raises(PermissionError):
            list(Path(path).iterdir()) if Path(path).is_dir() else Path(path).read_bytes()

    in_child(confined)


def test_neighbours_and_parents_cannot_be_read(work: Path, confine: Confine) -> None:
    """Not another sandbox's folder, nor the environment of the process that confined us."""
    parent = os.getpid()

    def confined() -> None:
        confine()
        for path in (
            work.parent / "other" / "secret",
            Path(f"/proc/{parent}/environ"),
            Path("/proc/1/cmdline"),
        ):
            with pytest.raises(PermissionError):
                path.read_bytes()

    in_child(confined)


def test_what_programs_need_can_be_read(confine: Confine) -> None:
    """The system's programs run, the interpreter imports, and facts about the machine can be asked for."""

    def confined() -> None:
        confine()
        assert os.system("/bin/echo x > /dev/null") == 0
        assert os.system(f"{sys.executable} -c 'import decimal, ssl'") == 0
        for path in ("/proc/cpuinfo", "/proc/meminfo", "/proc/self/status", "/etc/passwd", "/dev/urandom"):
            with Path(path).open("rb") as file:
                assert file.read(1)

    in_child(confined)


def test_hidden_folders_are_left_out(tmp_path: Path, confine: Confine) -> None:
    """A folder below one that can be read is not, when it is hidden; what lies beside it is."""
    for name in ("a", "b/c", "b/d"):
        (tmp_path / "shown" / name).mkdir(parents=True)
        (tmp_path / "shown" / name / "file").write_text(name)
    (tmp_path / "shown" / "plain").write_text("plain")

    def confined() -> None:
        shown = tmp_path / "shown"
        confine(mounts=[[str(shown), "/data"]], hidden=[str(shown / "b" / "c"), str(tmp_path / "elsewhere")])
        for path in ("a/file", "b/d/file", "plain"):
            assert (shown / path).read_text()
        with pytest.raises(PermissionError):
            (shown / "b" / "c" / "file").read_text()
        with pytest.raises(PermissionError):
            (shown / "a" / "new").write_text("x")

    in_child(confined)


def test_a_hidden_folder_around_a_shown_one_hides_it(tmp_path: Path, confine: Confine) -> None:
    """What is hidden stays hidden, also where something below it is named as shown."""
    (tmp_path / "hidden" / "shown").mkdir(parents=True)
    (tmp_path / "hidden" / "shown" / "file").write_text("x")

    def confined() -> None:
        confine(mounts=[[str(tmp_path / "hidden" / "shown"), "/data"]], hidden=[str(tmp_path / "hidden")])
        with pytest.raises(PermissionError):
            (tmp_path / "hidden" / "shown" / "file").read_text()

    in_child(confined)


def test_only_the_given_workspace_can_be_read(tmp_path: Path, confine: Confine) -> None:
    """A sample's own workspace is readable, its neighbour is not, and neither can be written."""
    for name in ("mine", "theirs"):
        (tmp_path / "workspaces" / name).mkdir(parents=True)
        (tmp_path / "workspaces" / name / "input").write_text(name)

    def confined() -> None:
        mine = tmp_path / "workspaces" / "mine"
        confine(workspace=mine)
        assert (mine / "input").read_text() == "mine"
        with pytest.raises(PermissionError):
            (mine / "input").write_text("x")
        with pytest.raises(PermissionError):
            (tmp_path / "workspaces" / "theirs" / "input").read_text()

    in_child(confined)


@pytest.mark.skipif(abi() < 4, reason="Landlock knows TCP from ABI 4 on")
@pytest.mark.parametrize("network", [False, True])
def test_tcp(confine: Confine, network: bool) -> None:
    """Connecting and binding are refused, unless the profile has the network."""
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()

    def confined() -> None:
        confine(network=network)
        if network:
            socket.create_connection(address).close()
            return
        with pytest.raises(PermissionError):
            socket.create_connection(address)
        with pytest.raises(PermissionError):
            socket.create_server(("127.0.0.1", 0))

    with server:
        in_child(confined)


@pytest.mark.skipif(abi() < 6, reason="Landlock knows signals and abstract sockets from ABI 6 on")
def test_signals_and_abstract_sockets_stay_within(confine: Confine) -> None:
    """No process outside can be signalled or reached by a name without a path."""
    name = f"\0kf-test-{os.getpid()}"
    parent = os.getpid()

    def confined() -> None:
        confine()
        with pytest.raises(PermissionError):
            os.kill(parent, 0)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(PermissionError):
            client.connect(name)
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        in_child(confined)


def test_rules_for_many_sandboxes(work: Path) -> None:
    """One set of rules serves any number of sandboxes, each with its own folder."""
    rules = Rules(settings(tier="landlock"), has_network=False)

    def confined() -> None:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        rules.restrict(str(work), None)
        (work / "work" / "x").write_text("x")

    for _ in range(3):
        in_child(confined)


@pytest.mark.parametrize(("version", "n_bits"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (7, 16)])
def test_accesses_by_version(version: int, n_bits: int) -> None:
    """A kernel is only asked to handle what its Landlock knows."""
    assert accesses(version) == (1 << n_bits) - 1


def test_interpreter_parts(tmp_path: Path) -> None:
    """A prefix is shown whole, or by its parts where a project lies in the same folder."""
    for name in ("bin", "lib", "include"):
        (tmp_path / name).mkdir()
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / ".gitignore").touch()
    assert interpreter.parts(str(tmp_path)) == [str(tmp_path)]
    (tmp_path / "src").mkdir()
    expected = [str(tmp_path / name) for name in ("bin", "include", "lib", "pyvenv.cfg")]
    assert interpreter.parts(str(tmp_path)) == expected


def test_this_module_would_notice(work: Path) -> None:
    """Unconfined, the same calls succeed: the tests above can fail."""

    def unconfined() -> None:
        assert (work.parent / "other" / "secret").read_text() == "s"
        (work.parent / "x").write_text("x")
        assert list(Path("/proc").iterdir())

    in_child(unconfined)
    assert landlock.abi() >= 1
