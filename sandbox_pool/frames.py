"""The private channel of a lean kernel as bytes: frames out, untrusted frames in. Pure.

A frame is one byte that says what it is, four bytes of length (big-endian), and so many bytes. From the
kernel come `r` (ready), `o` and `e` (text that Python wrote to stdout and stderr), `i` and `s` (Jupyter
messages of iopub and shell: type, parent's msg_id and content, with zero bytes between); to it goes `x`
(a request: type, msg_id, content). There is no signature: whoever could forge a message can read a key.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

_HEADER_BYTES = 5
KINDS = b"roeis"
Frame = tuple[int, bytes]
"""Kind (one of KINDS) and payload."""


class BrokenStream(ValueError):  # noqa: N818 - never leaves the package
    """Bytes that are no frames; nothing that follows can be read."""


def encode_request(kind: str, msg_id: str, content: bytes) -> bytes:
    """Return a request as a frame."""
    payload = b"\0".join((kind.encode(), msg_id.encode(), content))
    return b"x" + len(payload).to_bytes(4, "big") + payload


class FrameReader:
    """Cuts a stream of bytes into frames; holds at most one unfinished frame.

    Frames longer than `max_payload_bytes` are skipped, not stored: `take_skipped` tells their size.
    """

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._buffer = bytearray()
        self._n_to_skip = 0
        self._n_skipped = 0

    def take_skipped(self) -> int:
        """Return how many bytes were skipped since the last call."""
        n_skipped, self._n_skipped = self._n_skipped, 0
        return n_skipped

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole now. Raises BrokenStream at a kind that there is not."""
        data = self._skip(data)
        if not self._buffer:
            n_used = yield from self._cut(data)
            self._buffer += data[n_used:]
        else:
            self._buffer += data
            if self._may_be_whole():
                n_used = yield from self._cut(bytes(self._buffer))
                del self._buffer[:n_used]
        self._begin_to_skip()

    def _skip(self, data: bytes) -> bytes:
        n = min(self._n_to_skip, len(data))
        self._n_to_skip -= n
        self._n_skipped += n
        return data[n:]

    def _may_be_whole(self) -> bool:
        if len(self._buffer) < _HEADER_BYTES:
            return False
        return len(self._buffer) >= _HEADER_BYTES + int.from_bytes(self._buffer[1:_HEADER_BYTES], "big")

    def _cut(self, data: bytes) -> Generator[Frame, None, int]:
        at = 0
        while len(data) - at >= _HEADER_BYTES:
            kind = data[at]
            if kind not in KINDS:
                raise BrokenStream(f"frame of unknown kind {kind}")
            end = at + _HEADER_BYTES + int.from_bytes(data[at + 1 : at + _HEADER_BYTES], "big")
            if end > len(data):
                break
            if end - at - _HEADER_BYTES > self._max_payload_bytes:
                self._n_skipped += end - at - _HEADER_BYTES
            else:
                yield kind, data[at + _HEADER_BYTES : end]
            at = end
        return at

    def _begin_to_skip(self) -> None:
        if len(self._buffer) < _HEADER_BYTES:
            return
        length = int.from_bytes(self._buffer[1:_HEADER_BYTES], "big")
        if length > self._max_payload_bytes:
            n_there = len(self._buffer) - _HEADER_BYTES
            self._n_skipped += n_there
            self._n_to_skip = length - n_there
            self._buffer.clear()
