"""Keep the head and the tail of a text that may be far too long. Pure.

A `Clipped` grows piece by piece and never holds more than its two budgets. What is printed around
other outputs stays around them: `pieces` are mutable places in the ordered list of outputs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


def to_bytes(text: str) -> bytes:
    """Return UTF-8, with lone surrogates written as escapes."""
    return text.encode("utf-8", "backslashreplace")


def marker(n_missing_bytes: int) -> str:
    """Return what stands for output that was not kept."""
    return f"\n... [{n_missing_bytes} bytes of output not kept] ...\n"


def clip(text: str, max_bytes: int) -> tuple[str, bool]:
    """Return the text, or its first and last `max_bytes` with a marker between; and whether it was cut."""
    data = to_bytes(text)
    if len(data) <= 2 * max_bytes:
        return data.decode(), False
    end, start = _boundary(data, max_bytes), _boundary(data, len(data) - max_bytes)
    return data[:end].decode() + marker(start - end) + data[start:].decode(), True


def _boundary(data: bytes | bytearray, at: int) -> int:
    """Return the first place from `at` on at which no character is cut in two."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += 1
    return at


@dataclass(slots=True)
class Piece:
    """A stretch of one stream between two other outputs."""

    name: str
    data: bytearray = field(default_factory=bytearray)
    n_missing_bytes: int = 0
    """Bytes that were dropped where this piece begins."""

    def text(self) -> str:
        """Return the kept text, with a marker for what is missing before it."""
        kept = self.data.decode("utf-8", "replace")
        return marker(self.n_missing_bytes) + kept if self.n_missing_bytes else kept


class Clipped:
    """The pieces of one stream, all together within `max_bytes` of head and `max_bytes` of tail."""

    def __init__(self, max_bytes: int) -> None:
        self._head_left = max_bytes
        self._max_tail = max_bytes
        self._tail: deque[Piece] = deque()
        self._n_tail = 0
        self.n_missing_bytes = 0

    def add(self, data: bytes, piece: Piece) -> Piece:
        """Append text and return the piece that it ended in: `piece`, or a new one to put behind it.

        Args:
            data: what was written, as UTF-8; a character may be split between two calls.
            piece: the last piece of this stream if nothing else was output since, or a new empty one.
        """
        if self._head_left > 0:
            cut = len(data) if len(data) <= self._head_left else _boundary(data, self._head_left)
            piece.data += data[:cut]
            self._head_left -= cut
            data = data[cut:]
            if not data:
                return piece
        if not self._tail or self._tail[-1] is not piece:
            piece = Piece(piece.name)
            self._tail.append(piece)
        piece.data += data
        self._n_tail += len(data)
        self._trim()
        return piece

    def _trim(self) -> None:
        """Drop the oldest bytes of the tail. Lets it grow to twice its size first, to move bytes rarely."""
        if self._n_tail <= 2 * self._max_tail:
            return
        self.trim()

    def trim(self) -> None:
        """Bring the tail down to its budget."""
        excess = self._n_tail - self._max_tail
        missing = 0
        while excess > 0 and self._tail:
            oldest = self._tail[0]
            cut = len(oldest.data) if len(oldest.data) <= excess else _boundary(oldest.data, excess)
            missing += cut + oldest.n_missing_bytes
            oldest.n_missing_bytes = 0
            del oldest.data[:cut]
            excess -= cut
            self._n_tail -= cut
            self.n_missing_bytes += cut
            if oldest.data or len(self._tail) == 1:
                oldest.n_missing_bytes = missing
                break
            self._tail.popleft()
            self._tail[0].n_missing_bytes += missing
            missing = 0
