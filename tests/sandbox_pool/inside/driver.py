"""A manager of a few lines, blocking: starts a keeper, asks its zygote for sandboxes, runs cells in them."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

INSIDE = Path(__file__).parents[3] / "sandbox_pool" / "inside"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
UID = 61_234
TIMEOUT_S = 20.0


def settings(**changes: Any) -> dict[str, Any]:
    """Return a zygote's settings: a bare namespace tier, unless changed."""
    return {
        "tier": "namespace",
        "kernel": "lean",
        "uid": UID if os.geteuid() == 0 else None,
        "network": "none",
        "preload": [],
        "preload_optional": False,
        "mounts": [],
        "extra_paths": [],
        "hidden": [],
        "workspaces": None,
        "environment": {},
        "rlimits": {"RLIMIT_AS": 4 << 30, "RLIMIT_NPROC": 64, "RLIMIT_NOFILE": 256, "RLIMIT_CORE": 0},
        "work_bytes": 64 << 20,
        "work_inodes": 2000,
        "deny_memfd": True,
        "scratch": None,
        "cgroups": [],
        **changes,
    }


USER = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")
"""Starts a program as an ordinary user that nobody is, when we are root."""


def is_open(path: Path) -> bool:
    """Whether every user may read `path` and pass through what is above it."""
    return all(part.stat().st_mode & 0o001 for part in path.resolve().parents) and bool(
        path.stat().st_mode & 0o004
    )


def python_of_users() -> tuple[str, list[str]] | None:
    """Return an interpreter of our version that every user can run, and what to add for it to find IPython."""
    packages = Path(sysconfig.get_path("purelib"))
    if is_open(Path(sys.base_prefix, "lib")) and is_open(packages):
        return sys.executable, []
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    return (str(system), [str(packages)]) if system.exists() and is_open(packages) else None


class Talk:
    """One end of a stream socket on which lines of JSON come, with descriptors."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.settimeout(TIMEOUT_S)
        self.buffer = b""
        self.descriptors: list[int] = []

    def hear(self) -> dict[str, Any] | None:
        """Return the next line; None at the end."""
        while b"\n" not in self.buffer:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.end, 65536, 16)
            except ConnectionResetError:
                return None
            self.descriptors += descriptors
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        content: dict[str, Any] = json.loads(line)
        return content

    def take(self) -> list[int]:
        """Return the descriptors that came since the last call."""
        taken, self.descriptors = self.descriptors, []
        return taken


class Keeper:
    """A keeper with its zygote; as a context manager it is ended at the end."""

    def __init__(
        self,
        given: dict[str, Any],
        *,
        python: str = sys.executable,
        boot: Path = INSIDE / "boot.py",
        prefix: tuple[str, ...] = (),
    ) -> None:
        ours, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*prefix, python, "-s", str(boot)],
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=self.log, env=ENVIRONMENT, cwd="/",
        )  # fmt: skip
        theirs.close()
        self.talk = Talk(ours)
        ours.sendall(json.dumps(given).encode() + b"\n")
        self.greeting = self.talk.hear()
        self.number = 0

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def said(self) -> str:
        """Return what was written to the log."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def fork(self, *, n_listeners: int = 0, cgroups: tuple[int, ...] = (), **start: Any) -> Box:
        """Fork a sandbox and return it when its kernel is ready."""
        box = Box(self, n_listeners, cgroups, start)
        try:
            box.wait_until_ready()
        except BaseException:
            box.close()
            raise
        return box

    def zygote_pid(self, box: Box) -> int:
        """The host's pid of the zygote, by one of its sandboxes."""
        return int(status(box.init_pid)["PPid"])

    def close(self) -> int:
        """Hang up and wait for the end; returns the keeper's exit code."""
        self.talk.end.close()
        code = self.process.wait(TIMEOUT_S)
        self.log.close()
        return code


class Box:
    """One sandbox: its control socket, channel and pipes."""

    def __init__(
        self, keeper: Keeper, n_listeners: int, cgroups: tuple[int, ...], start: dict[str, Any]
    ) -> None:
        control, control_there = socket.socketpair()
        channel, channel_there = socket.socketpair()
        self.stdout, stdout_there = os.pipe()
        self.stderr, stderr_there = os.pipe()
        listeners = [socket.socket(socket.AF_UNIX) for _ in range(n_listeners)]
        line = {"front": "private", "key": None, "seed": 1, "uid": None, "killer_uid": None, "work": None}
        control.sendall(
            json.dumps({**line, "workspace": None, "max_sizes": [65536, 1 << 20], **start}).encode() + b"\n"
        )
        keeper.number += 1
        request = {"fork": keeper.number, "listeners": n_listeners, "cgroups": len(cgroups)}
        sent = [control_there.fileno(), channel_there.fileno(), stdout_there, stderr_there]
        sent += [listener.fileno() for listener in listeners] + list(cgroups)
        socket.send_fds(keeper.talk.end, [json.dumps(request).encode() + b"\n"], sent)
        self.answer = keeper.talk.hear()
        received = keeper.talk.take()
        self.pidfd = received[0] if received else None
        for end in (control_there, channel_there, *listeners):
            end.close()
        os.close(stdout_there)
        os.close(stderr_there)
        self.control, self.channel = Talk(control), channel
        channel.settimeout(TIMEOUT_S)
        self.frames = b""
        self.spilled = b""
        self.pipes = [self.stdout, self.stderr]
        self.kernel_pidfd: int | None = None
        self.work: int | None = None

    def wait_until_ready(self) -> None:
        """Wait for the kernel; an error that init tells is raised."""
        said = self.control.hear()
        if said is None or "error" in said:
            raise RuntimeError(f"no kernel: {said}")
        descriptors = self.control.take()
        if said["work"]:
            self.work = descriptors.pop()
        self.kernel_pidfd = descriptors.pop() if descriptors else None
        kind, _ = self.frame()
        if kind != b"r":
            raise RuntimeError(f"no kernel: {kind!r} {self.raw()!r} {self.control.hear()}")

    def frame(self) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame; an empty kind at the end."""
        while len(self.frames) < 5 or len(self.frames) < 5 + struct.unpack(">I", self.frames[1:5])[0]:
            self.drain_until(self.channel.fileno())
            data = self.channel.recv(65536)
            if not data:
                return b"", b""
            self.frames += data
        length = struct.unpack(">I", self.frames[1:5])[0]
        kind, payload = self.frames[:1], self.frames[5 : 5 + length]
        self.frames = self.frames[5 + length :]
        return kind, payload

    def run(self, code: str) -> str:
        """Run a cell and return all text that came of it: printed, returned, or the error's name and value."""
        content = json.dumps({"code": code, "silent": False, "store_history": True})
        payload = b"execute_request\0m1\0" + content.encode()
        self.channel.sendall(b"x" + struct.pack(">I", len(payload)) + payload)
        text = ""
        while True:
            kind, payload = self.frame()
            if kind in (b"o", b"e"):
                text += payload.decode()
            elif kind in (b"i", b"s"):
                name, _, body = payload.split(b"\0", 2)
                said = json.loads(body)
                if name == b"execute_result":
                    text += str(said["data"]["text/plain"])
                elif name == b"error":
                    text += f"{said['ename']}: {said['evalue']}"
                elif name == b"status" and said["execution_state"] == "idle":
                    return text + self.raw()
            elif kind == b"":
                return text + self.raw() + "<end>"

    def drain_until(self, channel: int) -> None:
        """Wait until the channel is readable, taking what comes by the pipes meanwhile."""
        give_up_at = time.monotonic() + TIMEOUT_S
        while channel not in (ready := is_readable([channel, *self.pipes], TIMEOUT_S)):
            assert ready, "neither frame nor output"
            assert time.monotonic() < give_up_at, "output and no frame"
            self.drain()

    def drain(self) -> None:
        """Take what is in the pipes now."""
        for descriptor in is_readable(self.pipes, 0):
            data = os.read(descriptor, 1 << 20)
            self.spilled += data
            if not data:
                self.pipes.remove(descriptor)

    def raw(self) -> str:
        """Return what came by the pipes since the last call."""
        self.drain()
        found, self.spilled = self.spilled, b""
        return found.decode(errors="replace")

    def interrupt(self) -> None:
        """Ask init to interrupt the kernel."""
        self.control.end.sendall(b"i")

    def kill(self) -> None:
        """End everything and wait until it is gone."""
        with suppress(OSError):
            self.control.end.shutdown(socket.SHUT_WR)
        self.wait_until_gone()

    def wait_until_gone(self, within_s: float = 10.0) -> None:
        """Wait until no process of the sandbox is left."""
        assert self.pidfd is not None, self.answer
        assert is_readable([self.pidfd], within_s), "init lives on"

    def close(self) -> None:
        """Kill, and close every descriptor."""
        self.kill()
        self.control.end.close()
        self.channel.close()
        for descriptor in (self.stdout, self.stderr, self.pidfd, self.kernel_pidfd, self.work):
            if descriptor is not None:
                os.close(descriptor)

    @property
    def init_pid(self) -> int:
        """The host's pid of init."""
        return host_pid(self.pidfd)

    @property
    def kernel_pid(self) -> int:
        """The host's pid of the kernel."""
        return host_pid(self.kernel_pidfd)


def is_readable(descriptors: list[int], within_s: float) -> set[int]:
    """Return those on which there is something to read, or the end."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(within_s * 1000)}


def host_pid(pidfd: int | None) -> int:
    """Return the pid, as this process sees it, that a pidfd stands for."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise AssertionError


def in_child(function: Callable[[], None]) -> None:
    """Call a function in a forked process, and fail as it fails."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:  # noqa: BLE001 - told to whoever waits
            os.write(write, traceback.format_exc().encode()[-60_000:])
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        text = said.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    assert status == 0, text or f"it ended with status {status}"


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies excluded."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Any, within_s: float = 5.0) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def namespaces(pid: int | str) -> dict[str, str]:
    """Return what identifies each namespace of a process."""
    names = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    return {name: str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in names}


def status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def descendants(pid: int) -> list[int]:
    """Return the living processes below one."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != pid:
            with suppress(OSError, IndexError):
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found += [int(folder.name), *descendants(int(folder.name))]
    return found
