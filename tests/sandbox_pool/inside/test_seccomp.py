"""The system call filter: as a program, run by a small interpreter for both machines, and installed."""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.inside import seccomp
from sandbox_pool.inside.seccomp import FAMILIES, ONLY_UNIX, Filter, Instruction
from sandbox_pool.inside.syscalls import PR_SET_NO_NEW_PRIVS, Unsupported, prctl
from tests.sandbox_pool.inside.driver import in_child

MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


def column(machine: str) -> int:
    return MACHINES.index(machine)


def tables() -> dict[str, tuple[int | None, int | None]]:
    return {**seccomp._NUMBERS, **seccomp._MEMORY_BEYOND_LIMITS, **seccomp._EXAMINED}


def decide(
    program: list[Instruction], architecture: int, number: int, arguments: tuple[int, ...] = ()
) -> str | int:
    """Run a filter as the kernel does; the decision is ALLOW, KILL or an errno."""
    words = {0: number, 4: architecture}
    for index in range(6):
        value = arguments[index] if index < len(arguments) else 0
        words[16 + 8 * index] = value & 0xFFFFFFFF
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == seccomp._LOAD:
            accumulator = words[value]
        elif code == seccomp._AND:
            accumulator &= value
        elif code == seccomp._JUMP:
            position += value
        elif code == seccomp._RETURN:
            return {seccomp._ALLOW: ALLOW, seccomp._KILL: KILL}.get(value) or value & 0xFFFF
        else:
            holds = {
                seccomp._IF_EQUAL: accumulator == value,
                seccomp._IF_AT_LEAST: accumulator >= value,
                seccomp._IF_ANY_BIT: bool(accumulator & value),
            }[code]
            position += if_true if holds else if_false


@pytest.fixture(name="program", params=MACHINES)
def _program(request: pytest.FixtureRequest) -> Callable[..., str | int]:
    machine: str = request.param
    program = seccomp.assemble(machine, FAMILIES, deny_memfd=True)

    def call(name: str, *arguments: int, architecture: int = ARCHITECTURES[machine]) -> str | int | None:
        number = tables()[name][column(machine)]
        return None if number is None else decide(program, architecture, number, arguments)

    return call  # type: ignore[return-value]


@pytest.mark.parametrize("name", [*seccomp._NUMBERS, *seccomp._MEMORY_BEYOND_LIMITS])
def test_what_is_on_the_list_is_refused(program: Callable[..., str | int], name: str) -> None:
    """A denied call fails with EPERM, whatever its arguments."""
    assert program(name) in (errno.EPERM, None)
    assert program(name, 1, 2, 3, 4, 5, 6) in (errno.EPERM, None)


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 700))
def test_everything_else_is_allowed(machine: str, number: int) -> None:
    """A call that no table names is allowed."""
    program = seccomp.assemble(machine, FAMILIES, deny_memfd=True)
    named = {numbers[column(machine)] for numbers in tables().values()}
    decision = decide(program, ARCHITECTURES[machine], number, (0, 0, 0))
    if number not in named:
        assert decision == ALLOW


def test_a_process_may_fork_and_thread_but_not_leave_its_namespaces(
    program: Callable[..., str | int],
) -> None:
    """Clone is refused with any namespace flag, and clone3, whose flags cannot be seen, is not there."""
    assert program("clone", 0x01200011) == ALLOW  # fork
    assert program("clone", 0x003D0F00) == ALLOW  # a thread
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert program("clone", 17 | 1 << bit) == errno.EPERM, bit
    assert program("clone3") == errno.ENOSYS


@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_socket_families(program: Callable[..., str | int], name: str) -> None:
    """Local, internet and route sockets can be had; all others do not exist."""
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        assert program(name, family, 1, 7) == ALLOW
    assert program(name, 16, 3, 0) == ALLOW  # netlink's routes, for getaddrinfo
    for protocol in (1, 4, 9, 12, 15, 16):
        assert program(name, 16, 3, protocol) == errno.EAFNOSUPPORT
    for family in (0, 3, 4, 5, 9, 17, 31, 38, 40, 44):
        assert program(name, family, 1, 0) == errno.EAFNOSUPPORT


@pytest.mark.parametrize("machine", MACHINES)
def test_without_a_network_namespace_only_local_sockets(machine: str) -> None:
    """Where nothing else keeps a sandbox off the network, every family but AF_UNIX is refused."""
    program = seccomp.assemble(machine, ONLY_UNIX, deny_memfd=True)
    number = seccomp._EXAMINED["socket"][column(machine)]
    assert number is not None
    for family in range(50):
        expected = ALLOW if family == socket.AF_UNIX else errno.EAFNOSUPPORT
        assert decide(program, ARCHITECTURES[machine], number, (family, 1, 0)) == expected


def test_terminals_cannot_be_typed_into(program: Callable[..., str | int]) -> None:
    """Of ioctl only what pushes characters into a terminal is refused, high bits or not."""
    assert program("ioctl", 0, 0x5401) == ALLOW
    assert program("ioctl", 0, 0x5412) == errno.EPERM
    assert program("ioctl", 0, 0x5412 | 1 << 40) == errno.EPERM
    assert program("ioctl", 0, 0x541C) == errno.EPERM


def test_device_nodes_cannot_be_made(program: Callable[..., str | int]) -> None:
    """Fifos, sockets and files can."""
    for mode in (0o010644, 0o140644, 0o100644, 0o644):
        assert program("mknodat", 0, 0, mode) == ALLOW
        assert program("mknod", 0, mode) in (ALLOW, None)
    for mode in (0o020644, 0o060644):
        assert program("mknodat", 0, 0, mode) == errno.EPERM
        assert program("mknod", 0, mode) in (errno.EPERM, None)


def test_personality_can_be_asked_but_not_changed(program: Callable[..., str | int]) -> None:
    """0 and the question are allowed; address randomisation stays on."""
    assert program("personality", 0) == ALLOW
    assert program("personality", 0xFFFFFFFF) == ALLOW
    assert program("personality", 0x0040000) == errno.EPERM


def test_other_instruction_sets_are_no_way_round(program: Callable[..., str | int]) -> None:
    """A 32-bit call ends the process, and x32's numbers do not exist."""
    assert program("clone", architecture=0x40000003) == KILL
    x86 = seccomp.assemble("x86_64", FAMILIES, deny_memfd=True)
    assert decide(x86, ARCHITECTURES["x86_64"], 0x40000000 | 272) == errno.ENOSYS


def test_memory_files_only_go_where_nothing_counts_them() -> None:
    """memfd_create and System V memory are left alone where a cgroup bounds them."""
    program = seccomp.assemble("x86_64", FAMILIES, deny_memfd=False)
    for name in seccomp._MEMORY_BEYOND_LIMITS:
        number = tables()[name][0]
        assert number is not None
        assert decide(program, ARCHITECTURES["x86_64"], number) == ALLOW


def test_an_unknown_machine_is_an_error_that_says_so() -> None:
    """No filter is better than a wrong one, and it is told."""
    with pytest.raises(Unsupported, match="riscv64"):
        Filter(families=FAMILIES, deny_memfd=True, machine="riscv64")


@pytest.mark.parametrize(
    ("machine", "header", "pattern"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
)
def test_numbers_are_those_of_the_headers(machine: str, header: str, pattern: str) -> None:
    """Every number that this machine's headers know is the same here."""
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    known = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    ours = {name: numbers[column(machine)] for name, numbers in tables().items()}
    assert len(known) > 300
    assert {name: number for name, number in ours.items() if name in known} == {
        name: known[name] for name in ours if name in known
    }


@needs_linux
@pytest.mark.skipif(platform.machine() not in MACHINES, reason="there is no filter for this machine")
class TestInstalled:
    """The filter on this kernel, each in a process that is thrown away."""

    def install(self) -> None:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        Filter(families=FAMILIES, deny_memfd=True).install()

    def test_refuses(self) -> None:
        """Denied calls fail, with the errors that programs know what to do with."""

        def refused() -> None:
            self.install()
            with pytest.raises(PermissionError):
                os.memfd_create("x")
            with pytest.raises(PermissionError):
                os.mknod("/tmp/kf-no-such-device", 0o020600, 1)
            with pytest.raises(OSError, match="Address family not supported"):
                socket.socket(40, socket.SOCK_STREAM)

        in_child(refused)

    def test_lets_programs_work(self) -> None:
        """Threads, subprocesses, pools, sockets and address look-ups work under it."""

        def working() -> None:
            import concurrent.futures
            import multiprocessing

            self.install()
            assert subprocess.run(["/bin/echo", "x"], capture_output=True, check=True).stdout == b"x\n"
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                assert list(pool.map(abs, [-1, -2])) == [1, 2]
            with multiprocessing.get_context("fork").Pool(2) as workers:
                assert workers.map(abs, [-1]) == [1]
            socket.create_server(("127.0.0.1", 0)).close()
            assert socket.getaddrinfo("127.0.0.1", 80)
            assert socket.if_nameindex()

        in_child(working)

    def test_outlasts_an_exec(self) -> None:
        """A program that is started is under it too."""

        def denied() -> None:
            self.install()
            code = "import os\ntry: os.memfd_create('x')\nexcept PermissionError: print('refused')"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert done.stdout == "refused\n"

        in_child(denied)
