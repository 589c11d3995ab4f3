"""The manager's end of a sandbox's init: start it, interrupt its kernel, kill it, know when it is gone.

Init is `inside/init.py`. Closing our end of its control socket is what ends it, so that it also ends
when the runner does, by whatever signal. Its death is noticed through a pidfd in the event loop, and
means that no process of the sandbox is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

ANY_CELL = ord("i")
_FIRST_MARK, _N_MARKS = 128, 127
_GIVE_UP_S = 15.0
_MAX_LINE_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 8


def mark_of(n_cell: int) -> int:
    """Return the byte by which the interrupt of a sandbox's n-th cell is known."""
    return _FIRST_MARK + n_cell % _N_MARKS


class Lifeline:
    """Control of one sandbox. Owns the socket and the pidfd; `kill` gives both up.

    Args:
        control: our end of the control socket; becomes non-blocking.
        pidfd: of init; None where the system has none (macOS): then the end of the socket is its end.
        on_change: called from the event loop when init has said something or is gone; must not raise.
    """

    def __init__(self, control: socket.socket, pidfd: int | None, on_change: Callable[[], None]) -> None:
        self._control = control
        self._pidfd = pidfd
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._line = b""
        self._is_open = True
        self._is_heard = True
        self.has_kernel = False
        """Whether init has forked the kernel."""

        self.exit_status: int | None = None
        """The kernel's exit code, or minus a signal's number; None while it lives, and when init was
        killed before it could tell."""

        self.error: tuple[str, str] | None = None
        """Kind (`unsupported` or `setup`) and text of what kept the sandbox from starting."""

        self._work: int | None = None
        control.setblocking(False)
        self._descriptor = control.fileno()
        self._loop.add_reader(self._descriptor, self._hear)
        if pidfd is not None:
            self._loop.add_reader(pidfd, self._on_end)

    @property
    def is_alive(self) -> bool:
        """Whether init has not ended; updated by the event loop."""
        return not self._ended.is_set()

    def has_ended(self) -> bool:
        """Ask the system whether init has ended, which the event loop may not have heard yet."""
        if self._ended.is_set() or self._pidfd is None:
            return self._ended.is_set()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def take_work(self) -> int | None:
        """Return the descriptor of the working directory, the caller's from now on; or None."""
        work, self._work = self._work, None
        return work

    def start(self, settings: Mapping[str, Any]) -> None:
        """Tell init what to start. Raises OSError when it is gone."""
        self._control.sendall(json.dumps(settings).encode() + b"\n")

    def interrupt(self, mark: int = ANY_CELL) -> None:
        """Send SIGINT to the kernel's process group.

        Args:
            mark: of the cell that is meant (its request has it too), so that no other hears of it, however
                late it comes, and that one does, however early.
        """
        with suppress(OSError):
            self._control.send(bytes([mark]))

    def start_kill(self) -> None:
        """Make every process of the sandbox end, without waiting for it. Idempotent."""
        if self._is_open:
            self._is_open = False
            with suppress(OSError):
                # not close(): what init still has to say is wanted
                self._control.shutdown(socket.SHUT_WR)

    async def kill(self) -> None:
        """Kill every process of the sandbox and wait until they are gone.

        Idempotent. When the wait is cancelled the processes end all the same.
        """
        self.start_kill()
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._ended.wait()
        except TimeoutError:
            if self._pidfd is None:
                self._on_end()
            else:
                with suppress(OSError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await self._ended.wait()

    def _hear(self) -> None:
        while self._is_heard:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _MAX_LINE_BYTES, _MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._stop_hearing()
                if self._pidfd is None:
                    self._on_end()
                return
            self._take(data, descriptors)

    def _stop_hearing(self) -> None:
        if self._is_heard:
            self._is_heard = False
            self._loop.remove_reader(self._descriptor)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        self._line += data
        *lines, self._line = self._line.split(b"\n")
        if len(self._line) > _MAX_LINE_BYTES:
            self._line = b""
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                self._understand(json.loads(line), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._on_change()

    def _understand(self, said: dict[str, Any], descriptors: list[int]) -> None:
        if "kernel" in said:
            self.has_kernel = True
            if said.get("work") and self._work is None and descriptors:
                self._work = descriptors.pop()
        elif "error" in said:
            self.error = (str(said.get("kind")), str(said["error"]))
        elif "exit" in said:
            self.exit_status = int(said["exit"])

    def _on_end(self) -> None:
        if self._ended.is_set():
            return
        self._hear()  # the last line may have come in the same turn of the loop
        self._is_open = False
        self._stop_hearing()
        self._control.close()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if self._work is not None:
            os.close(self._work)
            self._work = None
        self._ended.set()
        self._on_change()
