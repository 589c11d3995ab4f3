"""The keeper: the process between the manager and a zygote that outlives the zygote to clean up after it.

It stays what it was started as (the host's namespaces, the manager's uid) and as small as a bare Python.
When the manager's end of the socket closes, or the zygote dies, it kills the zygote, waits until nothing
of it and its sandboxes is left, removes the pool's cgroups and scratch folder if the manager is dead, and
ends. Its exit code is 0 when the manager hung up, 1 when the zygote was first.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from sandbox_pool.inside import lines
from sandbox_pool.inside.syscalls import IS_LINUX, PR_SET_CHILD_SUBREAPER, prctl

CONNECTION = 0
_PATIENCE_S = 1.5
_GIVE_UP_S = 4.0
_POLL_HANG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)


class Zygote:
    """What the keeper knows of its zygote, from the pipe that the zygote writes its progress to."""

    def __init__(self, pid: int, progress: int, go: int) -> None:
        self.builder: int | None = pid
        self.pid: int | None = None
        self.progress = progress
        self.go = go
        self.doing = "setting up"
        self.is_ready = False

    def hear(self) -> bool:
        """Read on; False when the zygote has ended."""
        data = os.read(self.progress, 65536)
        for word, _, text in (line.partition(" ") for line in data.decode(errors="replace").splitlines()):
            if word == "pid":
                self.pid = int(text)
                self._adopt()
            elif word == "doing":
                self.doing = text
            elif word == "ready":
                self.is_ready = True
        return bool(data)

    def _adopt(self) -> None:
        """Collect who built the zygote's root, if that was another process, and let the zygote go on."""
        if self.builder != self.pid and self.builder is not None:
            os.waitpid(self.builder, 0)
        self.builder = None
        os.write(self.go, b"g")

    def kill(self) -> None:
        """Kill it, and with it, in the namespace tier, all its sandboxes."""
        for pid in (self.builder, self.pid):
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Read the settings, start the zygote, wait and clean up; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    try:
        settings = lines.read_line(CONNECTION)
    except ValueError as error:
        _answer({"error": f"the settings cannot be read: {error}", "kind": "setup"})
        os._exit(1)
    if settings is None:
        os._exit(0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    zygote = start(settings)
    has_hung_up = wait(zygote)
    if not has_hung_up and not zygote.is_ready:
        _answer(last_words(zygote))
    with suppress(OSError):
        socket.socket(fileno=CONNECTION).shutdown(socket.SHUT_RDWR)
    zygote.kill()
    reap_all()
    if os.getppid() != settings.get("manager"):  # a living one has other zygotes, and removes its own
        remove_cgroups(settings.get("cgroups") or [])
        remove_scratch(settings.get("scratch"))
    os._exit(0 if has_hung_up else 1)


def start(settings: dict[str, Any]) -> Zygote:
    """Fork the zygote, which imports all that it needs itself."""
    progress_read, progress_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(progress_read)
        os.close(go_write)
        try:
            from sandbox_pool.inside import zygote

            zygote.main(settings, progress_write, go_read)
        except BaseException:
            sys.__excepthook__(*sys.exc_info())
            sys.stderr.flush()
        os._exit(1)
    os.close(progress_write)
    os.close(go_read)
    return Zygote(pid, progress_read, go_write)


def wait(zygote: Zygote) -> bool:
    """Wait until the manager has hung up (True) or the zygote has ended (False)."""
    poll = select.poll()
    poll.register(CONNECTION, _POLL_HANG_UP)
    poll.register(zygote.progress, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if zygote.progress in ready and not zygote.hear():
            return CONNECTION in dict(poll.poll(0))  # it may have heard before us
        if CONNECTION in ready:
            return True


def last_words(zygote: Zygote) -> dict[str, str]:
    """Say, in place of a zygote that ended before it was ready, what it was doing and how it ended."""
    status = 0
    with suppress(ChildProcessError):
        _, status = os.waitpid(zygote.pid or zygote.builder or -1, 0)
    zygote.pid = zygote.builder = None
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    kind = "preload" if zygote.doing.startswith("importing") else "setup"
    hint = "; take the module off the profile's preload list, or repair it" if kind == "preload" else ""
    return {"error": f"the zygote ended with {how} while {zygote.doing}{hint}", "kind": kind}


def _answer(content: dict[str, str]) -> None:
    with suppress(OSError):
        os.write(CONNECTION, json.dumps(content).encode() + b"\n")


def reap_all() -> None:
    """Wait until every process below this one is gone; kill those that do not go by themselves."""
    started_at = time.monotonic()
    while (waited_s := time.monotonic() - started_at) < _GIVE_UP_S:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] != 0:
                continue
        except ChildProcessError:
            return
        if waited_s > _PATIENCE_S:
            from sandbox_pool.inside import killing

            killing.kill_descendants()
        time.sleep(0.002)


def remove_cgroups(folders: list[str]) -> None:
    """Remove cgroups with all below them, trying again while their last tasks die."""
    give_up_at = time.monotonic() + _GIVE_UP_S / 2
    for top in folders if IS_LINUX else []:
        for folder, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    os.rmdir(folder)  # noqa: PTH106 - as os.walk names it
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > give_up_at:
                        break
                    time.sleep(0.002)
                else:
                    break


def remove_scratch(folder: str | None) -> None:
    """Remove the scratch folder, as a dead manager cannot."""
    if folder is not None:
        import shutil

        with suppress(RecursionError):  # a tree deeper than the stack is left to the next pool's sweep
            shutil.rmtree(folder, ignore_errors=True)
