"""The manager's end of a fork server: a keeper and its zygote, which fork sandboxes on request.

The processes are those of `inside/zygote.py`, talked to in lock step over one socket, a line of JSON
each way with descriptors beside it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sandbox_pool.errors import SandboxStartError, UnsupportedHost
from sandbox_pool.threads import in_thread

logger = logging.getLogger(__name__)

BOOT = Path(__file__).parent / "inside" / "boot.py"
_MAX_LINE_BYTES = 1024 * 1024
_MAX_DESCRIPTORS = 8
_LAST_LOG_BYTES = 2000
_END_S = 5.0
"""How long a keeper may take to end after its socket was closed, before it is killed."""


class ZygoteGone(SandboxStartError):  # noqa: N818 - named for the state, as in anyio
    """The zygote died, or did not answer in time."""


class Zygote:
    """One keeper with its zygote. `spawn` makes one; `close` ends it and all its sandboxes.

    Not safe to use from other threads. Requests are served one at a time, in the order of the calls.
    """

    def __init__(self, popen: subprocess.Popen[bytes], connection: socket.socket, log: Path) -> None:
        self._popen = popen
        self._connection = connection
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[tuple[dict[str, Any], list[int]]] | None = None
        self._line = b""
        self._descriptors: list[int] = []
        self._is_open = True
        self.n_forks = 0
        self.n_live = 0
        """Sandboxes that are forked and not closed; counted by whoever holds them."""

        self.skipped_modules: tuple[str, ...] = ()
        """Modules of the default preload list that the interpreter does not have."""

        self._loop.add_reader(connection.fileno(), self._on_readable)

    @classmethod
    async def spawn(
        cls,
        python: Path,
        settings: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        log: Path,
        timeout_s: float,
    ) -> Zygote:
        """Start a keeper and wait until its zygote can fork. Leaves nothing behind when it fails.

        Args:
            python: interpreter of the zygote and its sandboxes.
            settings: what `inside/zygote.py` reads first.
            environment: all variables that it and its sandboxes have.
            log: file for what they write to stderr; made anew.
            timeout_s: for starting up, the imports of the preload list included.

        Raises:
            UnsupportedHost: the interpreter, a module, or this machine cannot do what the profile asks.
            SandboxStartError: it failed otherwise; the message holds the end of what it wrote.
        """
        here, there = socket.socketpair()
        here.setblocking(False)
        # before there is a keeper: should we be killed while it starts, it knows what to remove
        here.sendall(json.dumps(settings).encode() + b"\n")
        started: list[subprocess.Popen[bytes]] = []
        try:
            with there:
                await in_thread(lambda: started.append(_exec(python, there, environment, log)))
        except OSError as error:
            here.close()
            if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                raise UnsupportedHost(f"cannot start {python} (sandbox.python): {error}") from error
            raise SandboxStartError(f"cannot start a process for {python}: {error}") from error
        except asyncio.CancelledError:
            here.close()  # which ends what was started
            for popen in started:
                await in_thread(partial(_wait_or_kill, popen))
            raise
        zygote = cls(started[0], here, log)
        try:
            await zygote._set_up(timeout_s)
        except BaseException:
            await zygote.close()
            raise
        return zygote

    async def _set_up(self, timeout_s: float) -> None:
        answer, descriptors = await self._ask(None, (), timeout_s)
        close_all(descriptors)
        if "error" in answer:
            text = str(answer["error"])
            raise UnsupportedHost(text) if answer.get("kind") != "setup" else SandboxStartError(text)
        self.skipped_modules = tuple(str(name) for name in answer.get("skipped", ()))

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self._is_open

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._popen.pid

    async def fork(
        self, descriptors: Sequence[int], request: Mapping[str, Any], timeout_s: float
    ) -> int | None:
        """Fork a sandbox and return a pidfd of its init; None where the system has no pidfds.

        Args:
            descriptors: what the sandbox gets; the caller closes its own copies.
            request: how many descriptors of which kind there are.
            timeout_s: after which the zygote counts as stuck, and is closed.

        Raises:
            ZygoteGone: it is dead or stuck; nothing of the sandbox is left.
            SandboxStartError: this machine is out of something for the moment.
        """
        self.n_forks += 1
        answer, received = await self._ask({"fork": self.n_forks, **request}, descriptors, timeout_s)
        if "error" in answer:
            close_all(received)
            raise SandboxStartError(f"the zygote could not fork: {answer['error']}")
        close_all(received[1:])
        return received[0] if received else None

    async def _ask(
        self, request: Mapping[str, Any] | None, descriptors: Sequence[int], timeout_s: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a line (None: it has been sent) and return the answer.

        Cancelling closes the zygote: the answer would be another's.
        """
        async with self._turn:
            if not self._is_open:
                raise ZygoteGone("the zygote is gone")
            self._answer = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    if request is not None:
                        await self._send(json.dumps(request).encode() + b"\n", descriptors)
                    return await self._answer
            except TimeoutError:
                self._hang_up()
                said = await in_thread(self._last_words)
                raise ZygoteGone(f"the zygote did not answer in {timeout_s:g} s; it wrote: {said}") from None
            except (OSError, EOFError):
                self._hang_up()
                said = await in_thread(self._last_words)
                raise ZygoteGone(f"the zygote died; it wrote: {said}") from None
            except asyncio.CancelledError:
                self._hang_up()
                raise
            finally:
                self._answer = None

    async def _send(self, line: bytes, descriptors: Sequence[int]) -> None:
        n_sent = 0
        while n_sent < len(line):
            try:
                n_sent += socket.send_fds(self._connection, [line[n_sent:]], [] if n_sent else descriptors)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    def _on_readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._connection, 65536, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        self._line += data
        if not data or len(self._line) > _MAX_LINE_BYTES:
            self._hang_up()
        elif self._line.endswith(b"\n"):
            line, received = self._line, self._descriptors
            self._line, self._descriptors = b"", []
            self._on_answer(line, received)

    def _on_answer(self, line: bytes, descriptors: list[int]) -> None:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if self._answer is None or self._answer.done() or not isinstance(answer, dict):
            close_all(descriptors)
            self._hang_up()
        else:
            self._answer.set_result((answer, descriptors))

    def _hang_up(self) -> None:
        """Stop talking to it, at which the keeper ends all. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._connection.fileno())
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # a forked child of ours may hold a copy of it
        self._connection.close()
        close_all(self._descriptors)
        self._descriptors = []
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(EOFError())

    def _last_words(self) -> str:
        with suppress(OSError):
            text = self._log.read_bytes()[-_LAST_LOG_BYTES:].decode("utf-8", "replace").strip()
            return text or "nothing"
        return "nothing"

    async def close(self) -> None:
        """End the zygote and all its sandboxes, and wait until they are gone. Idempotent."""
        self._hang_up()
        await in_thread(self._end)

    def _end(self) -> None:
        _wait_or_kill(self._popen)
        self._log.unlink(missing_ok=True)


def _exec(
    python: Path, connection: socket.socket, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [str(python), "-s", str(BOOT)],
            stdin=connection.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _wait_or_kill(popen: subprocess.Popen[bytes]) -> None:
    try:
        popen.wait(_END_S)
    except subprocess.TimeoutExpired:
        logger.warning("a zygote's keeper did not end by itself and is killed: pid=%d", popen.pid)
        popen.send_signal(signal.SIGKILL)
        popen.wait()


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
