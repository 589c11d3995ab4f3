"""The first process of a sandbox: it makes the sandbox, forks the kernel, and ends everything.

In the namespace tier it is the first process of a pid namespace, and its end is the end of all others.
Elsewhere it is a *guardian* outside of what confines the kernel, which kills all before it ends. Its
control socket is its lifeline: a byte interrupts the kernel, and the end of it ends the sandbox.

It is a copy of the zygote, memory included, and must touch little of that: what it writes to is no longer
shared.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sandbox_pool.inside import birth, isolation, killing, lines, syscalls
from sandbox_pool.inside.birth import EXIT_SETUP, Ends
from sandbox_pool.inside.syscalls import SetupFailed, Unsupported

if TYPE_CHECKING:
    from sandbox_pool.inside.tiers import Tier

_KILL_S = 10.0
_AGAIN_MS = [20, 50, 100, 200, 400]
"""How long to wait each time before an interrupt is repeated that the kernel has not heard of."""


class Kernel(NamedTuple):
    """The kernel as init has it: its pid, a pipe to it, and the pipe by which a child's death wakes init."""

    pid: int
    interrupt: int
    wakeup: int
    wakeup_write: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What init keeps open for it."""
        return self[1:]


def main(settings: dict[str, Any], tier: Tier, ends: Ends, unwanted: list[int]) -> None:
    """Be the first process of a sandbox, or its kernel; never returns.

    Args:
        settings: the zygote's.
        tier: what it prepared.
        ends: ours; the kernel's are closed here when it has them.
        unwanted: the zygote's own descriptors.
    """
    for descriptor in unwanted:
        os.close(descriptor)
    # the zygote's socket was 0: what is opened next must not take its number, which the kernel's input gets
    os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=ends.control)
    try:
        start = lines.read_line(ends.control)
        if start is None:
            os._exit(0)
        if settings["tier"] == "namespace":
            guard_namespace(settings, tier, ends, control, start)
        else:
            guard_host(settings, tier, ends, control, start)
    except (Unsupported, SetupFailed) as error:
        report(control, str(error), "unsupported" if isinstance(error, Unsupported) else "setup")
    except BaseException as error:
        sys.__excepthook__(*sys.exc_info())
        report(control, f"{type(error).__name__}: {error}", "setup")
    os._exit(EXIT_SETUP)


def report(control: socket.socket, text: str, kind: str) -> None:
    """Tell the manager why there is no kernel, and end."""
    try:
        lines.send(control, {"error": text, "kind": kind})
    finally:
        os._exit(EXIT_SETUP)


def guard_namespace(
    settings: dict[str, Any], tier: Tier, ends: Ends, control: socket.socket, start: dict[str, Any]
) -> None:
    """Make the namespaces, fork the kernel, give up all rights, and wait for the end.

    The kernel gives up its own; its code is not run before the manager has heard of it from here.
    """
    work = isolation.enter_sandbox(settings, start.get("workspace"))
    isolation.limit(settings["rlimits"])
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # the kernel has our uid, and may not look into us
    kernel = fork_kernel(settings, tier, ends, start)
    if settings["network"] == "none":
        isolation.bring_loopback_up()  # only now: it may have to wait for other namespaces to go
    isolation.give_up_rights(tier.filter)
    syscalls.close_all_but([2, ends.control, *kernel.descriptors, work])
    tell_kernel(control, kernel.pid, work)
    status = watch(ends.control, kernel, None)
    if status is not None:
        say_exit(control, status)
    os._exit(0)


def guard_host(
    settings: dict[str, Any], tier: Tier, ends: Ends, control: socket.socket, start: dict[str, Any]
) -> None:
    """Fork a kernel that confines itself, wait for the end, and kill all that is left."""
    assert tier.lifeline is not None
    zygote_alive, only_zygotes = tier.lifeline
    os.close(only_zygotes)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    kernel = fork_kernel(settings, tier, ends, start)
    syscalls.close_all_but([2, ends.control, *kernel.descriptors, zygote_alive])
    tell_kernel(control, kernel.pid, None)
    status = watch(ends.control, kernel, zygote_alive)
    killing.kill_all(
        None if status is not None else kernel.pid, start.get("uid"), start.get("killer_uid"), _KILL_S
    )
    if status is not None:
        say_exit(control, status)
    os._exit(0)


def fork_kernel(settings: dict[str, Any], tier: Tier, ends: Ends, start: dict[str, Any]) -> Kernel:
    """Fork the kernel, and see to it that its death wakes us."""
    interrupt_read, interrupt_write = os.pipe()
    os.set_blocking(interrupt_read, False)
    os.set_blocking(interrupt_write, False)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        birth.be_kernel(settings, tier, ends, start, interrupt_read, guardian)
        os._exit(EXIT_SETUP)
    return Kernel(pid, interrupt_write, wakeup_read, wakeup_write)


def _wake(*_: object) -> None:
    """Do nothing: that there is a handler makes Python write to the wake-up descriptor."""


def tell_kernel(control: socket.socket, kernel: int, work: int | None) -> None:
    """Tell the manager that there is a kernel, and hand it what it needs of it."""
    pidfds = [os.pidfd_open(kernel)] if syscalls.IS_LINUX else []
    descriptors = [*pidfds, *([] if work is None else [work])]
    line = b'{"kernel": %d, "pidfd": %s, "work": %s}\n' % (
        kernel,
        _JSON[bool(pidfds)],
        _JSON[work is not None],
    )
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    control.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])
    for descriptor in descriptors:
        os.close(descriptor)


_JSON = (b"false", b"true")


def watch(control: int, kernel: Kernel, zygote: int | None) -> int | None:
    """Wait for the kernel's end and return its status; None when the manager or the zygote ended first."""
    poll = select.poll()
    for descriptor in (control, kernel.wakeup, *(() if zygote is None else (zygote,))):
        poll.register(descriptor, select.POLLIN)
    waits_ms: list[int] = []
    while True:
        events = poll.poll(waits_ms[0] if waits_ms else None)
        if not events:
            waits_ms = waits_ms[1:] if interrupt_again(kernel) else []
        for descriptor, _ in events:
            if descriptor == kernel.wakeup:
                os.read(kernel.wakeup, 4096)
            elif descriptor == zygote or not obey(control, kernel):
                return None
            else:
                waits_ms = _AGAIN_MS
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == kernel.pid:
                return status


def obey(control: int, kernel: Kernel) -> bool:
    """Do what the manager says; False when it says no more."""
    try:
        words = os.read(control, 4096)
    except OSError:
        return False
    if words:
        with suppress(OSError):
            os.write(kernel.interrupt, words)  # by which the kernel knows that it was us, and whom we mean
        killing.send_signal(-kernel.pid, signal.SIGINT)
    return bool(words)


def interrupt_again(kernel: Kernel) -> bool:
    """Signal once more if the kernel has not heard of an interrupt yet; return whether that was so.

    Python takes note of a signal and handles it between two steps: one that comes just before a system
    call that waits is not handled until the call returns.
    """
    unread = struct.unpack("i", fcntl.ioctl(kernel.interrupt, termios.FIONREAD, b"\0\0\0\0"))
    if unread[0]:
        killing.send_signal(kernel.pid, signal.SIGINT)
    return bool(unread[0])


def say_exit(control: socket.socket, status: int) -> None:
    """Tell the manager how the kernel ended: its exit code, or minus the number of a signal."""
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    with suppress(OSError):
        lines.send(control, {"exit": code})
        control.setblocking(False)
        control.recv(65536)  # what is left unread would make the manager's end of the socket an error
