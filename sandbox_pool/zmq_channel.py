"""The manager's end of ipykernel: two zmq sockets, beside the pipes and the lifeline of every kernel.

They are read straight from the event loop's selector: no task, no thread and no asyncio socket per
kernel, which makes a cell cost a quarter of what AsyncKernelClient takes. The kernel queues what we do
not read (its SNDHWM is 0), so that a slow reader loses nothing and the memory is the sandbox's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import zmq

from sandbox_pool.channel import Channel, Listener, Source
from sandbox_pool.wire import BadMessage, decode, encode

_MESSAGES_PER_TURN = 64
_LAST_WORDS_S = 0.05


class ZmqChannel:
    """See `Channel`. Made when the kernel's sockets listen; `close` it.

    Not safe to use from other threads than the event loop's.

    Args:
        context: of the pool.
        prefix: what the paths of the kernel's sockets begin with; `-1` is shell, `-2` iopub.
        key: signs messages, both ways.
        listener: who hears of what comes.
        beneath: the channel that the kernel was started with; closed with this one.
        max_message_bytes: size at which zmq gives the connection up.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        prefix: str,
        key: bytes,
        *,
        listener: Listener,
        beneath: Channel,
        max_message_bytes: int,
    ) -> None:
        self._key = key
        self._listener = listener
        self._beneath = beneath
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Source, zmq.Socket[bytes]] = {}
        self._readers: list[int] = []
        for source, kind, number in (("iopub", zmq.SUB, 2), ("shell", zmq.DEALER, 1)):
            socket = context.socket(kind)
            socket.linger = 0
            socket.maxmsgsize = max_message_bytes
            socket.rcvhwm = 64
            socket.reconnect_ivl = -1  # a second connection would be to nobody
            if kind == zmq.SUB:
                socket.subscribe(b"")  # before connecting: what comes first must not be lost
            socket.connect(f"ipc://{prefix}-{number}")
            self._sockets[source] = socket  # type: ignore[index]
        for source, socket in self._sockets.items():
            descriptor = int(socket.getsockopt(zmq.FD))
            self._loop.add_reader(descriptor, self._drain, source)
            self._readers.append(descriptor)

    def request(self, kind: str, content: Mapping[str, Any]) -> str:
        """See `Channel`."""
        msg_id, frames = encode(self._key, kind, content)
        try:
            self._sockets["shell"].send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise OSError(f"the kernel cannot be reached: {error}") from error
        # Sending can use up the event that would have announced a message.
        self._loop.call_soon(self._drain, "shell")
        return msg_id

    def drain(self) -> None:
        """See `Channel`."""
        for source in ("iopub", "shell"):
            self._drain(source)
        self._beneath.drain()

    async def last_words(self) -> None:
        """See `Channel`. zmq's thread may still be reading them."""
        ends_at = self._loop.time() + _LAST_WORDS_S
        while self._loop.time() < ends_at:
            self.drain()
            await asyncio.sleep(_LAST_WORDS_S / 10)

    def close(self) -> None:
        """See `Channel`."""
        for descriptor in self._readers:
            self._loop.remove_reader(descriptor)
        self._readers.clear()
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()
        self._beneath.close()

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
                self._listener.on_garbage(f"{source}: {error}")
                continue
            self._listener.on_message(source, message)
        # The descriptor announces only what is new: come back for the rest, after the others.
        self._loop.call_soon(self._drain, source)
