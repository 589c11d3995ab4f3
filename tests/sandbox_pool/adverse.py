"""Machines that lack something, made of this one: a script is run on one, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.processes import ROOT, clean_environment

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_ORDINARY_UID = 54_321
Change = Callable[[], None]
"""Made in the child, between fork and exec; raises OSError where this machine does not let it."""


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def ordinary_user() -> None:
    """Be no root: of a user namespace with one uid, in which this machine's files keep their owners' rights."""
    if os.geteuid() == 0:
        _check(_libc().unshare(_CLONE_NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_ORDINARY_UID} 0 1")
        Path("/proc/self/gid_map").write_text(f"{_ORDINARY_UID} 0 1")


def no_user_namespaces() -> None:
    """Forbid user namespaces as `user.max_user_namespaces=0` does, for an ordinary user. Needs root."""
    ordinary_user()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def both(first: Change, second: Change) -> Change:
    """Return what makes one change and then the other."""

    def make() -> None:
        first()
        second()

    return make


def refuse(*numbers: int) -> Change:
    """Return what refuses system calls of x86_64 by number with EPERM, as a container's filter does."""

    def install() -> None:
        steps = [struct.pack("HBBI", 0x20, 0, 0, 0)]
        steps += [struct.pack("HBBI", 0x15, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
        steps += [struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x00050001)]
        code = ctypes.create_string_buffer(b"".join(steps))
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
        libc = _libc()
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0))

    return install


def few_descriptors() -> None:
    """Let no process have more than 256 descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _own_mounts() -> None:
    _check(_libc().unshare(_CLONE_NEWNS))
    _check(_libc().mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def no_cgroups() -> None:
    """Hide the control groups behind an empty folder. Needs root."""
    _own_mounts()
    _check(_libc().mount(b"none", b"/sys/fs/cgroup", b"tmpfs", 0, b"size=4k"))


def little_memory(folder: Path) -> Change:
    """Return what makes /proc/meminfo tell of 64 MB that are free. Needs root."""

    def cover() -> None:
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = {"MemAvailable": 64_000, "MemFree": 30_000, "SwapFree": 0, "Cached": 30_000}
        fake = folder / "meminfo"
        fake.write_text(
            "".join(
                f"{name}: {told.get(name, value.split()[0])} kB\n"
                for name, value in (s.split(":") for s in lines)
            )
        )
        _own_mounts()
        _check(_libc().mount(os.fsencode(fake), b"/proc/meminfo", None, _MS_BIND, None))

    return cover


def full_disk(folder: Path) -> Change:
    """Return what mounts a disk without a free byte at `folder`. Needs root."""

    def mount() -> None:
        _own_mounts()
        _check(_libc().mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=16k,nr_inodes=4,mode=755"))
        with suppress(OSError), (folder / "fill").open("wb") as file:
            while True:
                file.write(bytes(4096))

    return mount


def run_on(change: Change, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that imports what tests import; raises OSError where the machine cannot be made."""
    reader, writer = os.pipe()

    def prepare() -> None:
        try:
            change()
        except OSError as problem:
            os.write(writer, str(problem).encode())
            os._exit(3)

    with os.fdopen(reader, "rb") as problems:
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, *arguments],
                preexec_fn=prepare,
                capture_output=True, text=True, timeout=55, check=False, cwd=ROOT, env=clean_environment(),
            )  # fmt: skip
        finally:
            os.close(writer)
        if problem := problems.read().decode():
            raise OSError(f"this machine cannot be made to lack that: {problem}")
    return done
