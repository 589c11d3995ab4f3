"""The channel between a lean kernel and its manager: one stream socket, frames both ways.

Kernel to manager: `r` ready, `o` and `e` text of Python's streams, `i` and `s` messages of Jupyter's iopub
and shell channels. Manager to kernel: `x` a request. A message is its type, the id of the request and its
content as JSON, separated by NUL bytes.
"""

from __future__ import annotations

import json
import socket
from time import monotonic
from typing import Any

from sandbox_pool.inside.frames import ChannelClosed, Pipes, Reader, Writer, frame
from sandbox_pool.inside.front import Front, Request, to_json, write_all

_KINDS = {"stdout": b"o", "stderr": b"e"}
_MAX_HELD_CHARS = 8192
_MAX_HELD_S = 0.02
_MAX_TRIES = 1000


class PrivateFront(Front):
    """Speaks to the manager. Owns the socket.

    Text goes out at each newline, because a child process may write to its pipe right after it, and the
    manager can only know the order if it has the text before. What is held back otherwise goes out with the
    next message.
    """

    def __init__(self, channel: int, pipes: Pipes, max_message_chars: int | None = None) -> None:
        self._sock = socket.socket(fileno=channel)
        self._pipes = pipes
        self._reader = Reader(self._sock)
        self._writer = Writer(self._sock, pipes)
        self._max_message_chars = max_message_chars
        self._n_held_chars = 0
        self._has_begun_cell = False
        self._sent_at = 0.0
        self._concluded: Request | None = None

    def say_ready(self) -> None:
        """Tell the manager that requests are welcome."""
        self._writer.add_frames(frame(b"r", b""))
        self.flush()

    def begin(self, request: Request) -> None:
        """Work on a request: outputs name it from now on. Its first output takes `busy` along.

        That of the first cell goes at once: a kernel that dies without it has not died of the code's doing.
        """
        self.request = request
        self._pipes.patience_s = 2.0
        self._sent_at = monotonic()
        self._writer.add_frames(self._message(b"i", "status", {"execution_state": "busy"}))
        if request.type == "execute_request" and not self._has_begun_cell:
            self._has_begun_cell = True
            self.flush()

    def publish(self, kind: str, content: dict[str, Any], *, is_urgent: bool = True) -> None:
        """Send an output."""
        if self.is_child:
            return
        self._writer.add_frames(self._message(b"i", kind, shortened(content, self._max_message_chars)))
        if is_urgent:
            self.flush()

    def write(self, name: str, text: str) -> None:
        """Take text, and send it when it ends a line or has waited."""
        self._writer.add_text(_KINDS[name], text)
        self._n_held_chars += len(text)
        if "\n" in text or self._n_held_chars > _MAX_HELD_CHARS or monotonic() - self._sent_at > _MAX_HELD_S:
            self.flush()

    def flush(self) -> None:
        """Send what was held back."""
        self._n_held_chars = 0
        self._writer.send()
        self._sent_at = monotonic()

    def conclude(self, kind: str, content: dict[str, Any]) -> None:
        """Send reply and idle, once, whatever a late signal handler raises meanwhile."""
        frames = b""
        for n_tried in range(_MAX_TRIES):
            try:
                frames = frames or self._last_words(kind, content)
                if self._concluded is not self.request:
                    self._writer.items += [(b"", frames)]  # no call up to the next line, so no signal either
                    self._concluded = self.request
                self.flush()
                return
            except ChannelClosed:
                raise
            except BaseException as error:
                if not frames and n_tried > 10:
                    frames = self._last_words(kind, {"status": "error", "ename": type(error).__name__})

    def _last_words(self, kind: str, content: dict[str, Any]) -> bytes:
        idle = self._message(b"i", "status", {"execution_state": "idle"})
        return self._message(b"s", kind, content) + idle if kind else idle

    def receive(self) -> Request | None:
        """Return the next request, or None when the manager has hung up."""
        while (found := self._reader.receive()) is not None:
            kind, payload = found
            if kind == b"x":
                name, msg_id, content = payload.split(b"\0", 2)
                return Request(name.decode(), msg_id.decode(), json.loads(content))
            self._reader.accept()
        return None

    def accept(self, request: Request) -> None:
        """Go on to the next request."""
        self._reader.accept()

    def become_child(self) -> None:
        """Leave the channel to the parent."""
        super().become_child()
        self._writer.forget()

    def _message(self, kind: bytes, name: str, content: dict[str, Any]) -> bytes:
        head = f"{name}\0{self.request.msg_id}\0".encode()
        return frame(kind, head + to_json(content))


def shortened(content: dict[str, Any], max_chars: int | None) -> dict[str, Any]:
    """Cut a result or display off where the reader gives the cell up anyway, to spare both the copies."""
    data = content.get("data")
    if max_chars is None or not isinstance(data, dict):
        return content
    cut = {mime: value[:max_chars] if isinstance(value, str) else value for mime, value in data.items()}
    return dict(content, data=cut)


def tell_child_error(traceback: list[str]) -> None:
    """Write an error of a forked process where plain Python would."""
    write_all(2, "\n".join(traceback) + "\n")
