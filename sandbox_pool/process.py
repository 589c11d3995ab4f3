"""The process of one kernel, as the runner sees it: spawn, interrupt, kill, and know when it is gone.

The process is the guardian of `inside/launch.py`: when it has ended, every process of the sandbox
has. Closing its standard input is what ends it, so that it also ends when the runner does, by
whatever signal. Death is noticed through a pidfd in the event loop, not by polling.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sandbox_pool.threads import in_thread

LAUNCH = Path(__file__).parent / "inside" / "launch.py"
_GIVE_UP_S = 15.0


class KernelProcess:
    """A guardian and its kernel. `spawn` makes one; `kill` ends it.

    `on_change` is called from the event loop when the kernel's sockets listen and when the process
    has ended. Not safe to use from other threads.
    """

    def __init__(self, popen: subprocess.Popen[bytes], on_change: Callable[[], None]) -> None:
        self._popen = popen
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self.is_listening = False
        """Whether the kernel has said that its sockets listen."""
        assert popen.stdout is not None
        self._ready_fd: int | None = popen.stdout.fileno()
        self._loop.add_reader(self._ready_fd, self._on_ready)
        self._watch_death()

    @classmethod
    async def spawn(
        cls,
        python: Path,
        settings: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        log: Path,
        on_change: Callable[[], None],
    ) -> KernelProcess:
        """Start a kernel. Safe to cancel: no process is left then.

        Args:
            python: interpreter of guardian and kernel.
            settings: what launch.py reads; at most 60 kB, so that a pipe holds it.
            environment: all variables that the kernel has.
            log: file for what it writes before it is a kernel.
            on_change: see the class.

        Raises:
            OSError: the interpreter cannot be started.
        """
        started: list[subprocess.Popen[bytes]] = []
        try:
            await in_thread(lambda: started.append(_launch(python, settings, environment, log)))
        except asyncio.CancelledError:
            for popen in started:
                await in_thread(partial(popen.__exit__, None, None, None))  # closes its lifeline and waits
            raise
        return cls(started[0], on_change)

    @property
    def pid(self) -> int:
        """The guardian's process id."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether the guardian has not ended; updated by the event loop."""
        return not self._ended.is_set()

    def has_ended(self) -> bool:
        """Ask the system whether the guardian has ended, which the event loop may not have heard yet."""
        if not self.is_alive or not hasattr(os, "waitid"):
            return not self.is_alive
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # someone else has reaped it

    @property
    def exit_status(self) -> int | None:
        """Exit code, minus the signal's number, or None while it lives."""
        return self._popen.returncode

    def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group."""
        stdin = self._popen.stdin
        if stdin is not None and not stdin.closed:
            with suppress(BrokenPipeError):
                stdin.write(b"i")

    def start_kill(self) -> None:
        """Make every process of the sandbox end, without waiting for it. Idempotent."""
        stdin = self._popen.stdin
        if stdin is not None:
            stdin.close()

    async def kill(self) -> None:
        """Kill every process of the sandbox and wait until they are gone.

        Idempotent. When the wait is cancelled the processes end all the same.
        """
        self.start_kill()
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._ended.wait()
        except TimeoutError:
            # The guardian is stuck; its kernel dies with it.
            self._popen.kill()
            await self._ended.wait()

    def _on_ready(self) -> None:
        assert self._ready_fd is not None
        word = os.read(self._ready_fd, 16)
        self.is_listening |= bool(word)
        self._close_ready()
        self._on_change()

    def _close_ready(self) -> None:
        if self._ready_fd is not None:
            self._loop.remove_reader(self._ready_fd)
            self._ready_fd = None
            assert self._popen.stdout is not None
            self._popen.stdout.close()

    def _watch_death(self) -> None:
        if not hasattr(os, "pidfd_open"):  # macOS
            # Not in the loop's executor: it has few threads, and files are written in them.
            threading.Thread(target=self._wait_in_thread, daemon=True).start()
            return
        pidfd = os.pidfd_open(self._popen.pid)

        def ended() -> None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            self._popen.wait()  # does not block: the pidfd says that it has ended
            self._on_end()

        self._loop.add_reader(pidfd, ended)

    def _wait_in_thread(self) -> None:
        self._popen.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._on_end)

    def _on_end(self) -> None:
        self._close_ready()
        self.start_kill()
        self._ended.set()
        self._on_change()


def _launch(
    python: Path, settings: Mapping[str, Any], environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a guardian and tell it its settings. Blocks until its interpreter is executed."""
    # Not -I: it would ignore PYTHONHASHSEED. The environment holds nothing that we did not put there.
    command = [str(python), "-s", "-P", str(LAUNCH)]
    log.touch(mode=0o600)
    with log.open("wb") as log_file:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=dict(environment),
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
    assert popen.stdin is not None
    with suppress(BrokenPipeError):  # it has died; its log says why
        popen.stdin.write(json.dumps(settings).encode() + b"\n")
    return popen
