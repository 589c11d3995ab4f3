"""A lean kernel for Jupyter's own clients: signed messages over zmq sockets that the manager has bound.

All sockets belong to one thread. It never runs code of a cell, nor the handlers of a cell's signals, which
Python calls in the main thread; so no message is torn, and the client is heard while a cell runs. The main
thread hands it finished items through a deque, whose append is a single step.

Output that bypasses Python comes by two pipes of this process's own, which the same thread reads: text that
was printed before it is sent first, and text that is printed after it waits until it has been read.
"""

from __future__ import annotations

import collections
import datetime
import hashlib
import hmac
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import zmq

from sandbox_pool.inside.frames import Pipes, moved, saved
from sandbox_pool.inside.front import Front, Request, to_json
from sandbox_pool.inside.interrupts import Interrupts

_DELIMITER = b"<IDS|MSG>"
_UTC = datetime.timezone.utc  # noqa: UP017 - Python 3.9 and 3.10 have no datetime.UTC
_MAX_QUEUED = 2000
_LOOK_EVERY_MS = 50
_MAX_TEXT_CHARS = 1024 * 1024


class Signer:
    """Messages to and from frames, https://jupyter-client.readthedocs.io/en/stable/messaging.html."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._session = uuid.uuid4().hex

    def pack(self, kind: str, content: bytes, parent: dict[str, Any]) -> list[bytes]:
        """Return a message's frames, from the delimiter on."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self._session,
            "username": "kernel",
            "date": datetime.datetime.now(_UTC).isoformat(),
            "version": "5.4",
        }
        parts = [to_json(header), to_json(parent), b"{}", content]
        return [_DELIMITER, self._sign(parts), *parts]

    def unpack(self, frames: Sequence[bytes]) -> Request | None:
        """Return the request in these frames, or None if it is not signed with our key or no message."""
        try:
            at = frames.index(_DELIMITER)
            signature, header, parent, metadata, content = frames[at + 1 : at + 6]
            if not hmac.compare_digest(signature, self._sign([header, parent, metadata, content])):
                return None
            head = json.loads(header)
            return Request(head["msg_type"], head["msg_id"], json.loads(content), head, list(frames[:at]))
        except (ValueError, KeyError, TypeError):
            return None

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        if not self._key:
            return b""
        return hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()


class JupyterFront(Front):
    """Speaks to Jupyter clients.

    Owns the channel and the listeners, which are those for shell, iopub, stdin, control and heartbeat.
    """

    wants_input = True

    def __init__(self, listeners: Sequence[int], key: str, channel: int, interrupts: Interrupts) -> None:
        self._is_busy = False
        self._concluded: Request | None = None
        self._signer = Signer(key.encode())
        self._channel = channel
        self._interrupts = interrupts
        self._context = zmq.Context()
        shell, iopub, stdin, control, heartbeat = listeners
        self._shell = bound(self._context, zmq.ROUTER, shell)
        self._iopub = bound(self._context, zmq.XPUB, iopub)
        self._stdin = bound(self._context, zmq.ROUTER, stdin)
        self._control = bound(self._context, zmq.ROUTER, control)
        start_heartbeat(heartbeat)
        self._raw = {redirect(1): "stdout", redirect(2): "stderr"}
        self._pipes = Pipes([saved(1), saved(2)])
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._requests: collections.deque[Request] = collections.deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._outgoing: collections.deque[tuple[Any, ...]] = collections.deque()
        self._thread = threading.Thread(target=self._carry, name="jupyter", daemon=True)

    # -- the main thread's side

    def say_ready(self) -> None:
        """Start carrying messages, and tell the manager."""
        self._thread.start()
        os.write(self._channel, b"r\0\0\0\0")

    def begin(self, request: Request) -> None:
        """Work on a request: outputs name it from now on."""
        self.request = request
        self._is_busy = True
        self._pipes.patience_s = 2.0
        self.publish("status", {"execution_state": "busy"})

    def publish(self, kind: str, content: dict[str, Any], *, is_urgent: bool = True) -> None:
        """Send an output."""
        if not self.is_child:
            self._pipes.wait_until_empty()
            self._queue(self._iopub, kind, to_json(content), self.request)

    def write(self, name: str, text: str) -> None:
        """Take text; the cell waits when it writes faster than it can be sent."""
        self._pipes.wait_until_empty()
        self._outgoing.append((None, name, text, self.request))
        if not self._is_busy:  # else the thread looks by itself: print() writes its newline apart
            self._wake()
        while len(self._outgoing) > _MAX_QUEUED and self._thread.is_alive():
            time.sleep(0.001)

    def flush(self) -> None:
        """Send what was queued, as the thread does anyway."""
        self._wake()

    def conclude(self, kind: str, content: dict[str, Any]) -> None:
        """Send the reply, once, and say that all output has been sent."""
        self._pipes.wait_until_empty()
        self._is_busy = False
        if self._concluded is not self.request:
            last = [(self._iopub, "status", b'{"execution_state":"idle"}', self.request)]
            if kind:
                last.insert(0, (self.request.channel, kind, to_json(content), self.request))
            self._outgoing += last  # no call up to the next line, so no signal either
            self._concluded = self.request
        self._wake()

    def receive(self) -> Request | None:
        """Return the next request."""
        while not self._requests:
            self._bell.get()
        return self._requests[0]

    def queued(self) -> list[Request]:
        """Return the requests that have come and wait."""
        return list(self._requests)

    def accept(self, request: Request) -> None:
        """Go on to the next request."""
        if self._requests and self._requests[0] is request:
            del self._requests[0]

    def ask(self, prompt: str, *, is_secret: bool) -> str | None:
        """Return what the client's user has typed, or None if the client does not take such requests."""
        if not self.request.content.get("allow_stdin") or self.is_child:
            return None
        while not self._answers.empty():
            self._answers.get()
        content = to_json({"prompt": prompt, "password": is_secret})
        self._queue(self._stdin, "input_request", content, self.request)
        while True:
            try:
                return str(self._answers.get(timeout=0.1).content.get("value", ""))
            except queue.Empty:
                continue

    def close(self) -> None:
        """Wait until everything has been sent, a second at most."""
        self._queue(None, "", "", self.request)
        self._thread.join(1)

    def _queue(self, socket: Any, kind: str, content: bytes | str, request: Request) -> None:
        self._outgoing.append((socket, kind, content, request))
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # it is full: the thread will wake
            os.write(self._wake_w, b"x")

    # -- the thread's side

    def _carry(self) -> None:
        """Send and receive until told to stop, or until the manager hangs up, which ends the process."""
        poller = zmq.Poller()
        for source in (
            self._shell,
            self._control,
            self._stdin,
            self._iopub,
            self._wake_r,
            self._channel,
            *self._raw,
        ):
            poller.register(source, zmq.POLLIN)
        is_going = True
        while is_going:
            ready = dict(poller.poll(_LOOK_EVERY_MS if self._is_busy else None))
            if self._channel in ready and not os.read(self._channel, 4096):
                os._exit(0)
            if self._wake_r in ready:
                os.read(self._wake_r, 65536)
            is_going = self._send_all()
            for descriptor, name in self._raw.items():
                if descriptor in ready:
                    self._republish(descriptor, name)
            if self._iopub in ready:
                self._welcome()
            for socket in (self._control, self._shell, self._stdin):
                if socket in ready:
                    self._hear(socket)

    def _send_all(self) -> bool:
        """Send what is queued, texts of one stream in one message; False when there will be no more."""
        while self._outgoing:
            socket, kind, content, request = self._outgoing.popleft()
            if socket is not None:
                self._send(socket, kind, content, request)
                continue
            if not kind:
                self._context.destroy(linger=1000)
                return False
            texts, size = [content], len(content)
            while self._outgoing and self._outgoing[0][:2] == (None, kind) and size < _MAX_TEXT_CHARS:
                if self._outgoing[0][3] is not request:
                    break
                texts.append(self._outgoing.popleft()[2])
                size += len(texts[-1])
            self._stream(kind, "".join(texts), request)
        return True

    def _stream(self, name: str, text: str, request: Request) -> None:
        self._send(self._iopub, "stream", to_json({"name": name, "text": text}), request)

    def _send(self, socket: Any, kind: str, content: bytes, request: Request) -> None:
        first = [kind.encode()] if socket is self._iopub else request.identities
        socket.send_multipart([*first, *self._signer.pack(kind, content, request.header)])

    def _republish(self, descriptor: int, name: str) -> None:
        data = os.read(descriptor, 65536)
        if data:
            self._stream(name, data.decode("utf-8", "backslashreplace"), self.request)

    def _welcome(self) -> None:
        """Greet who has subscribed: from now on nothing is lost (JEP 65)."""
        word = self._iopub.recv()
        if word[:1] == b"\1":
            frames = self._signer.pack("iopub_welcome", to_json({"subscription": word[1:].decode()}), {})
            self._iopub.send_multipart([word[1:], *frames])

    def _hear(self, socket: Any) -> None:
        request = self._signer.unpack(socket.recv_multipart())
        if request is None:
            return
        request.channel = socket
        if socket is self._stdin:
            self._answers.put(request)
            return
        if socket is self._control and request.type in ("interrupt_request", "shutdown_request"):
            self._interrupts.force()
        self._requests.append(request)
        self._bell.put(None)


def bound(context: Any, kind: int, listener: int) -> Any:
    """Return a socket that listens on a descriptor bound by somebody else. Owns the descriptor."""
    socket = context.socket(kind)
    socket.linger = 1000
    if kind == zmq.XPUB:
        socket.sndhwm = 0  # at the default of 1000 messages, idle is lost under back-pressure
    if kind == zmq.ROUTER:
        socket.router_handover = 1
    os.set_inheritable(listener, False)
    socket.setsockopt(zmq.USE_FD, listener)
    socket.bind(f"ipc:///descriptor-{listener}")  # a name only: no file is made
    return socket


def start_heartbeat(listener: int) -> None:
    """Echo what comes, in a thread that needs no interpreter lock for it."""
    socket = bound(zmq.Context(), zmq.ROUTER, listener)

    def echo() -> None:
        with suppress(zmq.ZMQError):  # the process ends
            zmq.proxy(socket, socket)

    threading.Thread(target=echo, name="heartbeat", daemon=True).start()


def redirect(descriptor: int) -> int:
    """Let a descriptor write into a pipe and return the end to read from."""
    reading, writing = os.pipe()
    os.dup2(writing, descriptor)
    os.close(writing)
    return moved(reading)
