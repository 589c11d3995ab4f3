"""Lean kernels without zygote, init or isolation: forked from a small server, driven as the manager does."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).parents[3] / "sandbox_pool/inside"

_SERVER = """
import gc, json, os, signal, socket, sys, types
settings = json.loads(sys.argv[1])
sys.path[:] = [entry for entry in sys.path if entry not in ("", settings["inside"], settings["project"])]
for name, path in (("sandbox_pool", []), ("sandbox_pool.inside", [settings["inside"]])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
if settings["writable"]:
    import ctypes, fcntl, struct
    libc = ctypes.CDLL(None, use_errno=True)
    def call(name, *arguments):
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)
    call("unshare", 0x40020000)  # network and mounts
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(link, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
    link.close()
    call("mount", b"none", b"/", None, ctypes.c_ulong(1 << 18 | 16384), None)  # private
    folder = settings["writable"].encode()
    call("mount", folder, folder, None, ctypes.c_ulong(4096), None)  # bind
    call("mount", b"none", b"/", None, ctypes.c_ulong(32 | 4096 | 1), None)  # remount read-only
for name in settings["preload"]:
    __import__(name)
from sandbox_pool.inside import kernel
kernel.prepare(settings["kind"])
gc.collect(); gc.disable(); gc.freeze()
control = socket.socket(fileno=settings["control"])
def answer(**words):
    control.sendall(json.dumps(words).encode() + b"\\n")
def be_kernel(start, fds):
    channel, stdout, stderr, interrupt, log, *listeners = fds
    os.set_inheritable(log, False)
    control.close()
    os.setsid()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(start["environment"])
    os.chdir(start["work"])
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(old, new)
    os.close(null)
    try:
        status = kernel.run(start, channel=channel, stdout=stdout, stderr=stderr, interrupt=interrupt, listeners=listeners)
    except BaseException:
        import traceback
        os.write(log, traceback.format_exc().encode())
        status = 70
    os._exit(status)
answer(n_threads=len(os.listdir("/proc/self/task")), modules=len(sys.modules), fds=sorted(map(int, os.listdir("/proc/self/fd"))))
while True:
    line, fds, _, _ = socket.recv_fds(control, 1 << 20, 32)
    if not line:
        os._exit(0)
    order = json.loads(line)
    if "wait" in order:
        answer(status=os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]))
        continue
    pid = os.fork()
    if pid == 0:
        be_kernel(order, fds)
    for fd in fds:
        os.close(fd)
    answer(pid=pid)
"""


@dataclass
class Outcome:
    """What a cell did, in the order in which the manager would see it."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    """("stdout" or "stderr", text), ("raw", bytes of stdout's pipe), ("raw stderr", ...) or (type, content)."""

    reply: dict[str, Any] = field(default_factory=dict)
    n_reads: int = 0
    duration_s: float = 0.0

    @property
    def stdout(self) -> str:
        """What Python and others wrote there."""
        return self._text("stdout", "raw")

    @property
    def stderr(self) -> str:
        return self._text("stderr", "raw stderr")

    @property
    def result(self) -> str | None:
        found = self.contents("execute_result")
        return found[-1]["data"]["text/plain"] if found else None

    @property
    def error(self) -> tuple[str, str] | None:
        found = self.contents("error")
        return (found[-1]["ename"], found[-1]["evalue"]) if found else None

    @property
    def n_images(self) -> int:
        shown = [*self.contents("display_data"), *self.contents("execute_result")]
        return sum(any(mime.startswith("image/") for mime in content["data"]) for content in shown)

    def contents(self, kind: str) -> list[dict[str, Any]]:
        """Return the contents of all messages of a type."""
        return [value for name, value in self.events if name == kind]

    def _text(self, *kinds: str) -> str:
        return "".join(value for kind, value in self.events if kind in kinds)


class KernelServer:
    """Forks kernels from one prepared process. Close it: its kernels end with their channels.

    With `writable`, for recorded code, as root: no network, and of the root file system only that folder
    can be written.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        kind: str = "lean",
        python: str = os.environ.get("KERNELFLEET_TEST_PYTHON", sys.executable),
        writable: Path | None = None,
    ) -> None:
        self._control, theirs = socket.socketpair()
        settings = {
            "writable": str(writable) if writable else None,
            "inside": str(INSIDE),
            "project": str(INSIDE.parents[1]),
            "preload": preload,
            "kind": kind,
            "control": theirs.fileno(),
        }
        self.process = subprocess.Popen(
            [python, "-s", "-c", _SERVER, json.dumps(settings)],
            pass_fds=[theirs.fileno()], cwd="/", stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                 "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8",
                 "MPLCONFIGDIR": str(writable or tempfile.gettempdir()), "TMPDIR": str(writable or tempfile.gettempdir())},
        )  # fmt: skip
        theirs.close()
        self.facts = self._answer()

    def start_listening(
        self, work: Path, folder: str, key: str, **start: Any
    ) -> tuple[Kernel, dict[str, Any]]:
        """Fork a kernel for Jupyter clients, listening in a folder; return it and its connection info."""
        info = {
            "ip": f"{folder}/k", "transport": "ipc", "key": key, "signature_scheme": "hmac-sha256",
            "shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5,
        }  # fmt: skip
        listeners = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for number, listener in enumerate(listeners, start=1):
            listener.bind(f"{folder}/k-{number}")
            listener.listen(16)
        numbers = [listener.fileno() for listener in listeners]
        kernel = self.start(work, front="jupyter", key=key, listeners=numbers, **start)
        kernel.wait_until_ready()
        for listener in listeners:
            listener.close()
        return kernel, info

    def start(
        self,
        work: Path,
        *,
        listeners: Sequence[int] = (),
        environment: dict[str, str] | None = None,
        **start: Any,
    ) -> Kernel:
        """Fork a kernel."""
        ours, theirs = socket.socketpair()
        stdout, stdout_w = os.pipe()
        stderr, stderr_w = os.pipe()
        interrupt_r, interrupt = os.pipe()
        given = {
            "HOME": str(work),
            "IPYTHONDIR": f"{work}/.ipython",
            "MPLCONFIGDIR": f"{work}/.mpl",
            "TMPDIR": str(work),
        }
        line = {
            "front": "private",
            "seed": None,
            "work": str(work),
            "environment": given | (environment or {}),
        } | start
        fds = [theirs.fileno(), stdout_w, stderr_w, interrupt_r, 2, *listeners]
        socket.send_fds(self._control, [json.dumps(line).encode()], fds)
        pid = self._answer()["pid"]
        theirs.close()
        for fd in (stdout_w, stderr_w, interrupt_r):
            os.close(fd)
        return Kernel(self, pid, ours, {"raw": stdout, "raw stderr": stderr}, interrupt)

    def wait(self, pid: int) -> int:
        """Return how a kernel ended, once it has: code >= 0 or -signal."""
        self._control.sendall(json.dumps({"wait": pid}).encode())
        return int(self._answer()["status"])

    def close(self) -> None:
        self._control.close()
        self.process.wait(20)

    def _answer(self) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            part = self._control.recv(65536)
            assert part, "the server has died"
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer


class Kernel:
    """The manager's end of one kernel."""

    def __init__(
        self, server: KernelServer, pid: int, channel: socket.socket, pipes: dict[str, int], interrupt: int
    ) -> None:
        self.pid = pid
        self.channel = channel
        self._server = server
        self._pipes = pipes
        self._interrupt = interrupt
        self._buffer = b""
        self._outcome = Outcome()
        self._is_idle = False
        self._is_interrupted = False
        self._status: int | None = None
        self.is_over = False

    def wait_until_ready(self, within_s: float = 10) -> None:
        """Wait for `r`, and nothing before it."""
        deadline = time.monotonic() + within_s
        while not self._buffer:
            assert time.monotonic() < deadline
            self._buffer += self.channel.recv(5)
        assert self._buffer == b"r\0\0\0\0"
        self._buffer = b""

    def run(
        self, code: str, *, timeout_s: float = 20, interrupt_on: str | None = None, **content: Any
    ) -> Outcome:
        """Run a cell. `interrupt_on` interrupts it once this was written to stdout."""
        return self.request(
            "execute_request", {"code": code, "silent": False, "store_history": False} | content,
            timeout_s=timeout_s, interrupt_on=interrupt_on,
        )  # fmt: skip

    def request(
        self, kind: str, content: dict[str, Any], *, timeout_s: float = 20, interrupt_on: str | None = None
    ) -> Outcome:
        """Send a request and return what came until idle, and the reply."""
        self.post(kind, content)
        return self.wait_for_idle(timeout_s, interrupt_on)

    def wait_for_idle(self, timeout_s: float = 20, interrupt_on: str | None = None) -> Outcome:
        """Return what has come until idle."""
        began_at = time.perf_counter()
        deadline = time.monotonic() + timeout_s
        while not (self._is_idle or self.is_over):
            left = deadline - time.monotonic()
            if left < 0:
                raise TimeoutError(f"no idle: {self._outcome.events}")
            self._read(min(left, 0.05))
            if self._is_interrupted and not self.is_over:
                self._interrupt_again()
            if interrupt_on is not None and interrupt_on in self._outcome.stdout:
                self.interrupt()
                interrupt_on = None
        self._outcome.duration_s = time.perf_counter() - began_at
        return self._outcome

    def post(self, kind: str, content: dict[str, Any], msg_id: str | None = None) -> None:
        """Send a request."""
        self._outcome, self._is_idle = Outcome(), False
        self._msg_id = msg_id or uuid.uuid4().hex
        payload = f"{kind}\0{self._msg_id}\0{json.dumps(content)}".encode()
        self.channel.sendall(b"x" + len(payload).to_bytes(4, "big") + payload)

    def interrupt(self, *, announced: bool = True) -> None:
        """Do what the sandbox's init does."""
        if announced:
            os.write(self._interrupt, b"i")
            self._is_interrupted = True
        os.killpg(self.pid, signal.SIGINT)

    def _interrupt_again(self) -> None:
        """As init does, if the kernel has not heard of it."""
        self._is_interrupted = fcntl.ioctl(self._interrupt, termios.FIONREAD, bytes(4)) != bytes(4)
        if self._is_interrupted:
            os.kill(self.pid, signal.SIGINT)

    def wait_for_end(self, within_s: float = 10) -> None:
        """Wait until the kernel hangs up."""
        deadline = time.monotonic() + within_s
        while not self.is_over:
            assert time.monotonic() < deadline
            self._read(0.1)

    def close(self) -> int:
        """Hang up and return the exit status. Idempotent."""
        if self._status is not None:
            return self._status
        self.channel.close()
        for fd in (*self._pipes.values(), self._interrupt):
            os.close(fd)
        self._status = self._server.wait(self.pid)
        return self._status

    def kill(self) -> None:
        """End it and whatever is in its group."""
        if self._status is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.close()

    def _read(self, timeout_s: float) -> None:
        by_fd = {fd: name for name, fd in self._pipes.items()}
        readable, _, _ = select.select([self.channel, *by_fd], [], [], timeout_s)
        if not self._drain_channel():  # always before a pipe: what was said before is before
            return
        if self._is_idle:
            readable = [fd for fd in by_fd if select.select([fd], [], [], 0)[0]]
        for fd in readable:
            if fd in by_fd and (data := os.read(fd, 65536)):
                self._outcome.events.append((by_fd[fd], data.decode(errors="replace")))

    def _drain_channel(self) -> bool:
        """Take what has come; False when there is more, as a cell may print without end."""
        for _ in range(100):
            if not select.select([self.channel], [], [], 0)[0]:
                self._take_frames()
                return True
            data = self.channel.recv(1 << 16)
            if not data:
                self._take_frames()
                self.is_over = True
                return True
            self._outcome.n_reads += 1
            self._buffer += data
        self._take_frames()
        return False

    def _take_frames(self) -> None:
        start = 0
        while len(self._buffer) >= start + 5:
            end = start + 5 + int.from_bytes(self._buffer[start + 1 : start + 5], "big")
            if len(self._buffer) < end:
                break
            self._take(self._buffer[start : start + 1], self._buffer[start + 5 : end])
            start = end
        self._buffer = self._buffer[start:]

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind in (b"o", b"e"):
            assert len(payload) <= 65536
            self._outcome.events.append(({b"o": "stdout", b"e": "stderr"}[kind], payload.decode()))
            return
        assert kind in (b"i", b"s"), f"a torn frame: {kind + payload[:50]!r}"
        name, parent, content = payload.split(b"\0", 2)
        value = json.loads(content)
        if parent.decode() != self._msg_id:
            return
        if kind == b"s":
            self._outcome.reply = value
        elif name == b"status":
            self._is_idle |= value["execution_state"] == "idle"
        else:
            self._outcome.events.append((name.decode(), value))
