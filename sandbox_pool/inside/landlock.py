"""Landlock: what a process and its children may reach of the host's file system and network.

For machines that refuse user namespaces. The paths are opened once per zygote; a sandbox then needs a
handful of system calls. Source: Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from contextlib import suppress
from typing import Any

from sandbox_pool.inside import interpreter, syscalls
from sandbox_pool.inside.syscalls import Unsupported

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_FACTS = (
    "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/fonts", "/etc/localtime",
    "/etc/timezone", "/etc/mime.types", "/etc/magic", "/etc/alternatives", "/etc/pki/tls/certs",
    "/etc/pki/ca-trust", "/etc/protocols", "/etc/services", "/etc/os-release",
    "/etc/debian_version", "/etc/terminfo",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version", "/proc/uptime",
    "/proc/loadavg", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/random", "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/pipe-max-size", "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)  # fmt: skip
_FACTS_OF_NETWORK = ("/etc/resolv.conf", "/etc/host.conf", "/etc/gai.conf")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def abi() -> int:
    """Return the version of this kernel's Landlock; 0 where there is none."""
    if not syscalls.IS_LINUX:
        return 0
    return max(0, int(syscalls.libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def accesses(version: int) -> int:
    """Return every access to files that this version can deny."""
    n_bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    return (1 << n_bits) - 1


class Rules:
    """What all sandboxes of a zygote may reach, ready to be joined by one sandbox's own folders.

    Raises:
        Unsupported: this kernel has no Landlock.
    """

    def __init__(self, settings: dict[str, Any], *, has_network: bool) -> None:
        self.abi = abi()
        if self.abi < 1:
            raise Unsupported(
                "this kernel has no Landlock: it takes Linux 5.13 or newer with landlock in its lsm= list "
                "(CONFIG_LSM); or choose tier: process for code that you trust"
            )
        self._all = accesses(self.abi)
        network = _BIND_AND_CONNECT_TCP if self.abi >= 4 and not has_network else 0
        scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if self.abi >= 6 else 0
        fields = [self._all, *([network] if self.abi >= 4 else []), *([scopes] if self.abi >= 6 else [])]
        self._attributes = ctypes.create_string_buffer(
            struct.pack(f"={len(fields)}Q", *fields), 8 * len(fields)
        )
        self._rules: list[tuple[int, Any]] = []
        self._open_shared(settings, has_network=has_network)

    def _open_shared(self, settings: dict[str, Any], *, has_network: bool) -> None:
        hidden = [os.path.realpath(path) for path in settings.get("hidden") or []]
        whole = [
            *_SYSTEM,
            *interpreter.folders(),
            interpreter.OWN_FOLDER,
            *(settings.get("extra_paths") or []),
        ]
        whole += [source for source, _ in settings.get("mounts") or []]
        for path in whole:
            self._allow_around(os.path.realpath(path), hidden, is_asked_for=path == interpreter.OWN_FOLDER)
        for path in (*_FACTS, *(_FACTS_OF_NETWORK if has_network else ())):
            self._allow(path, _READ)
        for path in _DEVICES:
            self._allow(path, _READ_FILE | _WRITE_FILE | _TRUNCATE)

    def _allow_around(self, path: str, hidden: list[str], *, is_asked_for: bool = False) -> None:
        """Allow reading and running what is below `path` but not in `hidden`; names can be listed."""
        if interpreter.is_beneath(path, hidden) and not is_asked_for:
            return
        if not any(interpreter.is_beneath(mask, [path]) for mask in hidden) or is_asked_for:
            self._allow(path, _RUN)
            return
        self._allow(path, _READ_DIR)
        with suppress(OSError):
            for name in os.listdir(path):  # noqa: PTH208
                child = f"{path}/{name}"
                if not os.path.islink(child):  # noqa: PTH114 - what it leads to has its own rule
                    self._allow_around(child, hidden)

    def _allow(self, path: str, access: int) -> None:
        with suppress(OSError):  # not there: nothing to allow
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            self._rules.append((descriptor, self._attribute(descriptor, access)))

    def _attribute(self, descriptor: int, access: int) -> Any:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        access &= self._all & (-1 if is_folder else _FOR_FILES)
        return ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)

    def restrict(self, work: str, workspace: str | None) -> None:
        """Confine this process and its children for good; needs no_new_privs.

        Args:
            work: the sandbox's own folder, which it may write.
            workspace: a folder that it may read; None when there is none.
        """
        ruleset = syscalls.check(
            syscalls.libc.syscall(_CREATE_RULESET, self._attributes, len(self._attributes), 0),
            "landlock_create_ruleset",
        )
        for _, attribute in self._rules:
            self._add(ruleset, attribute)
        own = [(work, self._all & ~_IOCTL_DEV), ("/proc/self", _READ | _WRITE_FILE)]
        for path, access in [*own, *([(workspace, _RUN)] if workspace is not None else [])]:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            self._add(ruleset, self._attribute(descriptor, access))
            os.close(descriptor)
        syscalls.check(syscalls.libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
        os.close(ruleset)

    def _add(self, ruleset: int, attribute: Any) -> None:
        syscalls.check(
            syscalls.libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, attribute, 0), "landlock_add_rule"
        )
