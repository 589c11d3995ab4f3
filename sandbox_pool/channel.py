"""The manager's end of a lean kernel: one stream socket for frames, two pipes for what bypasses Python.

Nothing is buffered here beyond one frame, and a kernel that writes faster than it is read waits in
send(): no output is lost and no memory fills on either side. The kernel sends a frame only when both
pipes are empty, so that reading the socket to its end before any pipe gives everything in the order in
which it was written.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import orjson

from sandbox_pool.frames import BrokenStream, FrameReader, encode_request
from sandbox_pool.wire import Message

Source = Literal["shell", "iopub"]
StreamName = Literal["stdout", "stderr"]
_READ_BYTES = 256 * 1024
_MAX_READS = 64
"""Reads from one kernel before the others get their turn."""

_SOURCES: dict[int, Source] = {ord("i"): "iopub", ord("s"): "shell"}
_NAMES: dict[int, StreamName] = {ord("o"): "stdout", ord("e"): "stderr"}


class Listener(Protocol):
    """Who hears of what a kernel says. Called from the event loop; must not raise."""

    def on_ready(self) -> None:
        """The kernel takes requests."""

    def on_message(self, source: Source, message: Message) -> None:
        """A Jupyter message has come; whose and whether it makes sense is not known."""

    def on_text(self, name: StreamName, data: bytes) -> None:
        """Something was written to stdout or stderr."""

    def on_skipped(self, n_bytes: int) -> None:
        """A message was too long to be taken."""

    def on_cut_off(self) -> None:
        """The kernel has closed its end, or died."""

    def on_garbage(self, problem: str) -> None:
        """Something came that no kernel sends."""


class Channel(Protocol):
    """Requests to one kernel, whatever it speaks; what comes back goes to a Listener."""

    def request(self, kind: str, content: Mapping[str, Any]) -> str:
        """Send a request and return its id. Raises OSError when the kernel cannot be reached."""
        ...

    def drain(self) -> None:
        """Take what has arrived."""
        ...

    async def last_words(self) -> None:
        """Take what a dead kernel had sent before its end."""
        ...

    def close(self) -> None:
        """Stop. Idempotent."""
        ...


class Pipe:
    """The reading end of a kernel's stdout or stderr. Owns the descriptor; `close` it.

    Args:
        descriptor: of the pipe; becomes non-blocking.
        on_data: is given what was read, from the event loop.
        first: called before each reading.
    """

    def __init__(
        self, descriptor: int, on_data: Callable[[bytes], None], *, first: Callable[[], object]
    ) -> None:
        self._descriptor = descriptor
        self._on_data = on_data
        self._first = first
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._on_readable)

    def _on_readable(self) -> None:
        self._first()
        self.read()

    def read(self) -> bool:
        """Read once; whether there was something."""
        if not self._is_open:
            return False
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._on_data(data)
        return True

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)


class PrivateChannel:
    """See `Channel`. Owns the socket and the pipes; `close` it.

    Args:
        connection: our end of the socket pair; becomes non-blocking.
        stdout: reading end of the pipe that is the kernel's descriptor 1.
        stderr: the same of 2.
        listener: who hears of what comes.
        max_frame_bytes: messages that are longer are skipped, and counted.
    """

    def __init__(
        self, connection: socket.socket, stdout: int, stderr: int, listener: Listener, *, max_frame_bytes: int
    ) -> None:
        self._connection = connection
        self._listener = listener
        self._reader = FrameReader(max_frame_bytes)
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._is_open = True
        self._is_heard = True
        connection.setblocking(False)
        self._descriptor = connection.fileno()
        self._loop.add_reader(self._descriptor, self._read)
        self._pipes = (
            Pipe(stdout, lambda data: listener.on_text("stdout", data), first=self._read_all),
            Pipe(stderr, lambda data: listener.on_text("stderr", data), first=self._read_all),
        )

    def request(self, kind: str, content: Mapping[str, Any]) -> str:
        """See `Channel`."""
        msg_id = uuid.uuid4().hex
        frame = encode_request(kind, msg_id, orjson.dumps(content))
        if self._unsent:
            self._unsent += frame
            return msg_id
        try:
            n_sent = self._connection.send(frame)
        except BlockingIOError:
            n_sent = 0
        if n_sent < len(frame):
            self._unsent += frame[n_sent:]
            self._loop.add_writer(self._descriptor, self._send_rest)
        return msg_id

    def _send_rest(self) -> None:
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:  # the kernel is dead, which others notice
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._descriptor)

    def drain(self) -> None:
        """See `Channel`."""
        self._read_all()
        for pipe in self._pipes:
            for _ in range(_MAX_READS):
                if not pipe.read():
                    break

    async def last_words(self) -> None:
        """See `Channel`."""
        self.drain()

    def close(self) -> None:
        """See `Channel`."""
        if self._is_open:
            self._is_open = False
            self._stop_hearing()
            self._loop.remove_writer(self._descriptor)
            self._connection.close()
            for pipe in self._pipes:
                pipe.close()

    def _read_all(self) -> None:
        for _ in range(_MAX_READS):
            if not self._read():
                return

    def _read(self) -> bool:
        if not self._is_heard:
            return False
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._stop_hearing()
            self._listener.on_cut_off()
            return False
        try:
            self._take(data)
        except BrokenStream as error:
            self._stop_hearing()
            self._listener.on_garbage(str(error))
        return True

    def _stop_hearing(self) -> None:
        if self._is_heard:
            self._is_heard = False
            self._loop.remove_reader(self._descriptor)

    def _take(self, data: bytes) -> None:
        for kind, payload in self._reader.feed(data):
            if name := _NAMES.get(kind):
                self._listener.on_text(name, payload)
            elif source := _SOURCES.get(kind):
                self._take_message(source, payload)
            else:
                self._listener.on_ready()
        if n_skipped := self._reader.take_skipped():
            self._listener.on_skipped(n_skipped)

    def _take_message(self, source: Source, payload: bytes) -> None:
        try:
            kind, parent_id, content = payload.split(b"\0", 2)
            message = Message(kind.decode(), parent_id.decode(), content)
        except ValueError:
            self._listener.on_garbage("a message that is none")
        else:
            self._listener.on_message(source, message)
