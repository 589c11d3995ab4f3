"""The private channel's frames, and how a kernel writes and reads them without ever tearing one.

A frame is one byte of kind, four bytes of length (big-endian) and so many bytes of payload.

Code in a cell may raise from anywhere: KeyboardInterrupt by the sandbox's init, a TimeoutError of its own
SIGALRM handler (an OSError that has no errno, by which it is told from ours), an exception that another
thread plants. It may also print from a signal handler while we are in the middle of sending. So the state
here is always whole: output waits as a list of items, bytes that the socket has taken are counted by C code
alone (`list.extend(map(send, ...))`), and two statements without a call between them are one step to
CPython, which looks for signals only after calls and at jumps back.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios
import threading
from time import monotonic, sleep

MAX_PIECE_CHARS = 10_000
"""Of text in one frame: at most 60 kB of UTF-8, the limit being 64 KiB."""

_CHUNK_BYTES = 256 * 1024
_MAX_WAIT_S = 2.0
_NO_SIGPIPE = getattr(socket, "MSG_NOSIGNAL", 0) | socket.MSG_DONTWAIT


class ChannelClosed(BaseException):
    """The manager is gone. No Exception: a cell must not be able to live on by catching it."""


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return one frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


def encode_text(text: str) -> bytes:
    """Return text as UTF-8; what UTF-8 cannot hold is written out with a backslash."""
    return text.encode("utf-8", "backslashreplace")


class Pipes:
    """The pipes behind descriptors 1 and 2, which the manager empties: bytes that no one of us has read.

    Owns nothing: `ends` are descriptors of the caller's, kept open, that code in a cell does not know of.
    """

    def __init__(self, ends: list[int]) -> None:
        self._ends = ends
        self.patience_s = _MAX_WAIT_S
        """How long all waits of this cell may still take: a child that floods must not stop every print."""

    def is_empty(self) -> bool:
        """Return whether the manager has read everything; True where that cannot be known."""
        try:
            return all(fcntl.ioctl(end, termios.FIONREAD, b"\0\0\0\0") == b"\0\0\0\0" for end in self._ends)
        except OSError as error:
            if error.errno is None:
                raise  # a TimeoutError of the code's own signal handler, for one
            return True

    def wait_until_empty(self) -> None:
        """Wait until what was written before has been read, so that it stays before what we send now."""
        pause_s = 0.00005
        while self.patience_s > 0 and not self.is_empty():
            began_at = monotonic()
            sleep(pause_s)
            self.patience_s -= monotonic() - began_at
            pause_s = min(2 * pause_s, 0.002)


class Writer:
    """Frames out, from any thread and from signal handlers; `send` blocks while the socket is full.

    Owns the socket given to it.
    """

    def __init__(self, sock: socket.socket, pipes: Pipes) -> None:
        self._sock = sock
        self._pipes = pipes
        self._lock = threading.RLock()
        self._is_sending = False
        self.items: list[tuple[bytes, str | bytes]] = []
        """What is queued: (kind, text) of a stream, or (b"", whole frames)."""

        self._offset = 0  # of items[0], how much is in `_wire` already
        self._wire = bytearray()
        self._taken: list[int] = []

    def add_text(self, kind: bytes, text: str) -> None:
        """Queue text of one of the streams."""
        self.items.append((kind, text))

    def add_frames(self, frames: bytes) -> None:
        """Queue whole frames, all or none of them."""
        self.items.append((b"", frames))

    def send(self) -> None:
        """Send what is queued. Raises ChannelClosed when nobody listens any more."""
        if not self.items and not self._wire:
            return
        with self._lock:
            if self._is_sending:  # a signal handler prints within this very send, which will see to it
                return
            self._is_sending = True
            try:
                self._pipes.wait_until_empty()
                self._drain()
                while self.items:
                    self._seal()
                    self._drain(_CHUNK_BYTES)
                self._drain()
            finally:
                self._is_sending = False

    def forget(self) -> None:
        """Drop everything, after a fork: it is the parent's to send."""
        self._lock = threading.RLock()
        self._is_sending = False
        self.items, self._wire, self._taken, self._offset = [], bytearray(), [], 0

    def _seal(self) -> None:
        """Move the first items, or a piece of the first one, onto the wire."""
        items, start = self.items, self._offset
        kind, first = items[0]
        if kind == b"":
            piece: str | bytes = first[start : start + _CHUNK_BYTES]
            frames, n_done = bytes(piece), 1  # type: ignore[arg-type]
        else:
            piece, n_done = self._joined(kind, start)
            frames = frame(kind, encode_text(piece))
        end = start + len(piece)
        if n_done == 1 and end < len(first):
            self._wire += frames
            self._offset = end
        else:
            self._wire += frames
            del items[:n_done]
            self._offset = 0

    def _joined(self, kind: bytes, start: int) -> tuple[str, int]:
        """Return the text of as many first items as fit into one frame, and their number."""
        piece: str = self.items[0][1][start : start + MAX_PIECE_CHARS]  # type: ignore[assignment]
        if start + len(piece) < len(self.items[0][1]):
            return piece, 1
        parts, size = [piece], len(piece)
        for other, text in self.items[1:]:
            size += len(text)
            if other != kind or size > MAX_PIECE_CHARS:
                break
            parts.append(text)  # type: ignore[arg-type]
        return "".join(parts), len(parts)

    def _drain(self, at_most: int = 0) -> None:
        """Give the socket what is on the wire until no more than so many bytes are left."""
        wire, taken = self._wire, self._taken
        self._account()
        while len(wire) > at_most:
            chunk = bytes(wire[:_CHUNK_BYTES])
            try:
                taken.extend(map(self._sock.send, (chunk,), (_NO_SIGPIPE,)))
            except BlockingIOError:
                _wait_for(self._sock, select.POLLOUT)
            except OSError as error:
                if error.errno is None:
                    raise
                raise ChannelClosed from error
            self._account()

    def _account(self) -> None:
        n_taken = sum(self._taken)
        del self._wire[:n_taken]
        del self._taken[:]


class Reader:
    """Frames in. For one thread; an exception that interrupts it anywhere costs no frame."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._chunks: list[bytes] = []
        self._buffer = bytearray()
        self._end = 0  # of the frame that was returned last

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame's kind and payload, or None when the manager has hung up. Blocks.

        It is the next one until it is accepted.
        """
        while (end := self._first_end()) is None:
            try:
                self._chunks.extend(map(self._sock.recv, (65536,)))
            except BlockingIOError:
                _wait_for(self._sock, select.POLLIN)
            except OSError as error:
                if error.errno is None:
                    raise
                return None
            if self._chunks and self._chunks[-1] == b"":
                return None
        found = bytes(self._buffer[:1]), bytes(self._buffer[5:end])
        self._end = end
        return found

    def accept(self) -> None:
        """Go on to the next frame, once."""
        del self._buffer[: self._end]
        self._end = 0

    def _first_end(self) -> int | None:
        """Return where the first frame ends, if it is whole."""
        fresh = b"".join(self._chunks)
        self._buffer += fresh
        del self._chunks[:]
        if len(self._buffer) < 5:
            return None
        end = 5 + int.from_bytes(self._buffer[1:5], "big")
        return end if end <= len(self._buffer) else None


def _wait_for(sock: socket.socket, event: int) -> None:
    poller = select.poll()
    poller.register(sock.fileno(), event)
    poller.poll()


def saved(descriptor: int) -> int:
    """Return a copy of a descriptor, out of the way of code that closes or redirects the usual numbers.

    No program that the code starts inherits it.
    """
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    except OSError:  # a low RLIMIT_NOFILE
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def moved(descriptor: int) -> int:
    """Move a descriptor out of the way, unless it is one of the first three; return its new number."""
    copy = saved(descriptor)
    if descriptor > 2:
        os.close(descriptor)
    return copy
