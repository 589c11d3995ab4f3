"""The root file system of a profile's sandboxes: read-only, and only what is needed.

Built once per zygote, by a process that may mount: root before it drops, or the root of a user namespace.
Sources are opened before anything is mounted, so that they are found below folders that only root may
enter and below what is covered later. Each sandbox gets a copy with its mount namespace.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sandbox_pool.inside import interpreter
from sandbox_pool.inside.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    SetupFailed,
    change_root,
    mount,
)

SANDBOX = "/sandbox"
FOLDERS = ("work", "home", "tmp", "shm")
"""Folders of the one writable file system, mounted at SANDBOX for each sandbox."""

INSIDE, EMPTY, WORKSPACES, WORKSPACE = "/inside", "/empty", "/workspaces", "/workspace"

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ETC_BINDS = (
    "ssl/certs",
    "fonts",
    "alternatives",
    "ld.so.conf.d",
    "pki/tls/certs",
    "pki/ca-trust",
    "terminfo",
)
_ETC_COPIES = (
    "ld.so.cache", "ld.so.conf", "localtime", "timezone", "mime.types", "magic", "protocols", "services",
    "ssl/openssl.cnf", "debian_version", "gai.conf", "inputrc",
)  # fmt: skip
_ETC_OF_NETWORK = ("resolv.conf", "hosts", "host.conf")
_RESERVED = ("/proc", "/dev", "/sys", "/etc", "/tmp", SANDBOX, INSIDE, EMPTY, WORKSPACES, WORKSPACE)
# wheels keep the host's path, which may be below /tmp; /tmp cannot be written then, TMPDIR can
_RESERVED_FOR_PATHS = tuple(path for path in _RESERVED if path != "/tmp")
_CPU_FACTS = "/sys/devices/system/cpu"

_ETC_FILES = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n"
    "sandbox:x:1000:1000:sandbox:/sandbox/home:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class Source(NamedTuple):
    """Something of the host's to show in the sandbox, or (descriptor None) to hide there."""

    target: str
    descriptor: int | None
    is_folder: bool
    path: str = ""
    """Where it is on the host, links resolved."""


def open_source(path: str, target: str, what: str) -> Source:
    """Open what is to be shown. Raises SetupFailed, which says `what` it is, when it cannot be."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SetupFailed(f"{what} {path} cannot be shown in a sandbox: {error.strerror}") from None
    return Source(target, descriptor, os.path.isdir(path), os.path.realpath(path))  # noqa: PTH112


def sources(settings: dict[str, Any]) -> list[Source]:
    """Open everything that sandboxes are to see, and name all that they are not; outermost target first."""
    found = [
        open_source(path, path, "the system's folder")
        for path in _SYSTEM
        if os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114
    ]
    found += [
        open_source(f"/etc/{name}", f"/etc/{name}", "the system's folder")
        for name in _ETC_BINDS
        if os.path.isdir(f"/etc/{name}")  # noqa: PTH112
    ]
    if settings.get("network") == "host":
        found += [
            open_source(os.path.realpath(f"/etc/{name}"), f"/etc/{name}", "the system's file")
            for name in _ETC_OF_NETWORK
            if os.path.exists(f"/etc/{name}")  # noqa: PTH110
        ]
    if os.path.isdir(_CPU_FACTS):  # noqa: PTH112
        found.append(open_source(_CPU_FACTS, _CPU_FACTS, "the system's folder"))
    system = [source.target for source in found]
    hidden = [os.path.normpath(path) for path in settings.get("hidden") or []]
    found += [
        open_source(path, path, "the interpreter's folder")
        for path in interpreter.folders()
        # a mask in between hides what the system's folder shows of it
        if not interpreter.is_beneath(path, system) or interpreter.is_beneath(path, hidden)
    ]
    found += [
        open_source(path, _checked_target(path, "extra path", _RESERVED_FOR_PATHS), "the extra path")
        for path in settings.get("extra_paths") or []
    ]
    found += [
        open_source(path, _checked_target(target, "mount target", _RESERVED), "the mount source")
        for path, target in settings.get("mounts") or []
    ]
    found.append(open_source(interpreter.OWN_FOLDER, INSIDE, "the kernels' code"))
    if settings.get("workspaces"):
        found.append(open_source(settings["workspaces"], WORKSPACES, "the folder of workspaces"))
    found += masks(found, hidden)
    # at one target the mask first, so that what is asked for by name is seen
    return sorted(
        found, key=lambda source: (source.target.count("/"), source.target, source.descriptor is not None)
    )


def masks(shown: list[Source], hidden: list[str]) -> list[Source]:
    """Return what hides each of the host's paths in `hidden` wherever something shows it."""
    found = []
    for path in {os.path.realpath(path) for path in hidden if os.path.exists(path)}:  # noqa: PTH110
        for source in shown:
            if interpreter.is_beneath(path, [source.path]):
                target = source.target + path[len(source.path) :]
                found.append(Source(target, None, os.path.isdir(path)))  # noqa: PTH112
    return found


def _checked_target(target: str, what: str, reserved: tuple[str, ...]) -> str:
    path = os.path.normpath(target)
    if not target.startswith("/") or path in ("/", *_SYSTEM) or interpreter.is_beneath(path, list(reserved)):
        raise SetupFailed(
            f"{what} {target!r}: it must be an absolute path outside of {', '.join(reserved)}; "
            "choose another, such as /data"
        )
    return path


def build(settings: dict[str, Any]) -> None:
    """Make the root of the sandboxes and make it the root of this mount namespace, all other is let go.

    Raises:
        SetupFailed: something that is to be shown is not there, or has no place.
        OSError: the system refuses a mount.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    shown = sources(settings)
    devices = [open_source(f"/dev/{name}", f"/dev/{name}", "the device") for name in _DEVICES]
    # on Linux it must be seen somewhere for a user namespace to be allowed to mount its own
    proc = open_source("/proc", "/proc", "the system's folder")
    etc = {name: _public_content(f"/etc/{name}") for name in _ETC_COPIES}
    links = {path: os.readlink(path) for path in _SYSTEM if os.path.islink(path)}  # noqa: PTH114, PTH115
    root = staging_folder()
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=8m")
    _make_skeleton(root, links, etc)
    own_devices = {os.stat(root).st_dev}  # noqa: PTH116
    for source in shown:
        _show(root, source, own_devices)
    for name in ("dev/shm", "tmp", "var/tmp"):
        _link(root, name, f"{SANDBOX}/{'shm' if name == 'dev/shm' else 'tmp'}")
    _make_read_only(root)
    for device in devices:
        mount(f"/proc/self/fd/{device.descriptor}", root + device.target, None, MS_BIND)
        mount("none", root + device.target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC)
    mount(f"/proc/self/fd/{proc.descriptor}", f"{root}/proc", None, MS_BIND | MS_REC)
    for source in (*shown, *devices, proc):
        if source.descriptor is not None:
            os.close(source.descriptor)
    change_root(root)


def staging_folder() -> str:
    """Return a folder that can be mounted over, in a mount namespace that is ours alone."""
    return next(path for path in ("/tmp", "/mnt", "/var", "/usr") if os.path.isdir(path))  # noqa: PTH112


def make_folders(top: str) -> None:
    """Make the folders of a sandbox below `top`, for its owner alone."""
    for name in FOLDERS:
        os.mkdir(f"{top}/{name}", 0o700)  # noqa: PTH102


def _public_content(path: str) -> bytes | None:
    """Return what everybody may read of the host's configuration, or None."""
    with suppress(OSError):
        file = Path(path)
        if file.stat().st_mode & 0o004 and file.is_file():
            return file.read_bytes()[: 1 << 20]
    return None


def _make_skeleton(root: str, links: dict[str, str], etc: dict[str, bytes | None]) -> None:
    top = Path(root)
    for path in (
        "proc",
        "dev",
        "etc",
        "run",
        "var",
        SANDBOX[1:],
        INSIDE[1:],
        EMPTY[1:],
        WORKSPACES[1:],
        WORKSPACE[1:],
    ):
        (top / path).mkdir()
    (top / EMPTY[1:]).chmod(0o555)
    for path, target in links.items():
        (top / path[1:]).symlink_to(target)
    contents = {name: text.encode() for name, text in _ETC_FILES.items()}
    for name, content in {
        **contents,
        **{name: data for name, data in etc.items() if data is not None},
    }.items():
        file = top / "etc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for name in _DEVICES:
        (top / "dev" / name).touch()
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (top / "dev" / name).symlink_to(f"/proc/self/fd{target}")


def _link(root: str, name: str, target: str) -> None:
    with suppress(FileExistsError):  # something is mounted below it
        Path(root, name).symlink_to(target)


def _show(root: str, source: Source, own_devices: set[int]) -> None:
    """Mount one source; its mount point is made only where that does not write to the host."""
    target = root + source.target
    if source.descriptor is None:
        if os.path.lexists(target):
            _hide(target, source, own_devices)
        return
    if not os.path.lexists(target):
        _make_mount_point(root, target, own_devices, is_folder=source.is_folder)
    if os.path.realpath(target) != target and not os.path.realpath(target).startswith(root + "/"):
        raise SetupFailed(f"{source.target} is a link out of the sandbox's root: choose another target")
    mount(f"/proc/self/fd/{source.descriptor}", target, None, MS_BIND | MS_REC)


def _hide(target: str, source: Source, own_devices: set[int]) -> None:
    if source.is_folder:
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
        own_devices.add(os.stat(target).st_dev)  # noqa: PTH116
    else:
        mount("/dev/null", target, None, MS_BIND)


def _make_mount_point(root: str, target: str, own_devices: set[int], *, is_folder: bool) -> None:
    parent = os.path.dirname(target)  # noqa: PTH120
    missing = []
    while not os.path.lexists(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)  # noqa: PTH120
    if os.path.realpath(parent) != parent or os.stat(parent).st_dev not in own_devices:  # noqa: PTH116
        shown = target[len(root) :]
        raise SetupFailed(
            f"{shown} cannot be shown in a sandbox: {parent[len(root) :]} is the host's own and has no such "
            "place; choose a target outside of the system's folders, such as /data"
        )
    for folder in reversed(missing):
        os.mkdir(folder, 0o755)  # noqa: PTH102
    if is_folder:
        os.mkdir(target, 0o755)  # noqa: PTH102
    else:
        Path(target).touch()


def _make_read_only(root: str) -> None:
    """Make every mount below `root` read-only, keeping the flags that a user namespace may not lift."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        path = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        if interpreter.is_beneath(path, [root]):
            noexec = MS_NOEXEC if "noexec" in fields[5].split(",") else 0
            flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | noexec
            with suppress(FileNotFoundError):  # covered by another
                mount("none", path, None, flags)
