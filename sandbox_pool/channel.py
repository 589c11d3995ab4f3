"""The manager's end of one kernel: requests out, untrusted messages in.

Two zmq sockets over ipc, read straight from the event loop's selector: no task, no thread and no
asyncio socket per kernel, which makes a cell cost a quarter of what AsyncKernelClient takes. The
kernel queues what we do not read (its SNDHWM is 0), so that a slow reader loses nothing and the
memory is the sandbox's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

import zmq

from sandbox_pool.wire import BadMessage, Message, decode, encode

Source = Literal["shell", "iopub"]
_MESSAGES_PER_TURN = 64


class Channel:
    """Shell and iopub of one kernel. Made when the kernel's sockets listen; `close` it.

    Not safe to use from other threads than the event loop's. `on_message` and `on_garbage` are called
    from the loop and must not raise.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        prefix: str,
        key: bytes,
        *,
        max_message_bytes: int,
        on_message: Callable[[Source, Message], None],
        on_garbage: Callable[[str], None],
    ) -> None:
        self._key = key
        self._on_message = on_message
        self._on_garbage = on_garbage
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Source, zmq.Socket[bytes]] = {}
        self._readers: list[int] = []
        for source, kind, number in (("iopub", zmq.SUB, 2), ("shell", zmq.DEALER, 1)):
            socket = context.socket(kind)
            socket.linger = 0
            socket.maxmsgsize = max_message_bytes
            socket.rcvhwm = 64
            socket.reconnect_ivl = -1  # a cell could put its own socket, or a link, in the place of the old
            if kind == zmq.SUB:
                socket.subscribe(b"")  # before connecting: what comes first must not be lost
            socket.connect(f"ipc://{prefix}-{number}")
            self._sockets[source] = socket  # type: ignore[index]
        for source, socket in self._sockets.items():
            descriptor = int(socket.getsockopt(zmq.FD))
            self._loop.add_reader(descriptor, self._drain, source)
            self._readers.append(descriptor)

    def request(self, kind: str, content: Mapping[str, Any]) -> str:
        """Send a request on the shell channel and return its id."""
        msg_id, frames = encode(self._key, kind, content)
        self._sockets["shell"].send_multipart(frames, zmq.NOBLOCK)
        # Sending can use up the event that would have announced a message.
        self._loop.call_soon(self._drain, "shell")
        return msg_id

    def drain(self) -> None:
        """Read what has arrived."""
        for source in ("iopub", "shell"):
            self._drain(source)

    def close(self) -> None:
        """Stop reading and close the sockets. Idempotent."""
        for descriptor in self._readers:
            self._loop.remove_reader(descriptor)
        self._readers.clear()
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()

    def _drain(self, source: Source) -> None:
        for _ in range(_MESSAGES_PER_TURN):
            socket = self._sockets.get(source)
            if socket is None or not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            try:
                message = decode(self._key, frames)
            except BadMessage as error:
                self._on_garbage(f"{source}: {error}")
                continue
            self._on_message(source, message)
        # The descriptor announces only what is new: come back for the rest, after the others.
        self._loop.call_soon(self._drain, source)
