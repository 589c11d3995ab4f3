"""What a kernel speaks through: the request that it works on, and where output, replies and text go.

`Front` itself speaks to nobody; it is what the template shell in the zygote has. `private.PrivateFront` and
`jupyter.JupyterFront` speak to the manager and to Jupyter clients.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """A message to the kernel."""

    type: str
    msg_id: str
    content: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)
    """As it came, for the replies' parent_header; only where messages have headers."""

    identities: list[bytes] = field(default_factory=list)
    channel: Any = None
    """The socket to answer on, where there are several."""


class Front:
    """A listener that is not there. Subclasses replace what they need; any thread may call any method."""

    request = Request("", "", {})
    """The one being worked on, or the last one."""

    wants_input = False
    """Whether clients are told what code runs: they may be several."""

    is_child = False
    """Whether this process is one that the code forked: it must not speak as the kernel does."""

    def publish(self, kind: str, content: dict[str, Any], *, is_urgent: bool = True) -> None:
        """Send a message to whom it may concern, now or, not urgent, with the next one."""

    def write(self, name: str, text: str) -> None:
        """Take text of one of the streams, "stdout" or "stderr"."""

    def flush(self) -> None:
        """Send what was held back."""

    def begin(self, request: Request) -> None:
        """Work on a request from now on."""

    def conclude(self, kind: str, content: dict[str, Any]) -> None:
        """Send the reply and say that all output has been sent."""

    def receive(self) -> Request | None:
        """Return the next request, or None when there will be none. Blocks.

        It is the next one until it is accepted: an exception on the way costs no request.
        """
        return None

    def queued(self) -> list[Request]:
        """Return the requests that have come and wait, where there can be any."""
        return []

    def accept(self, request: Request) -> None:
        """Go on to the next request, once, however often this one is accepted."""

    def say_ready(self) -> None:
        """Tell the manager that requests are welcome."""

    def close(self) -> None:
        """Send the last words."""
        self.flush()

    def ask(self, prompt: str, *, is_secret: bool) -> str | None:
        """Return what a person has typed, or None where there is nobody to ask."""
        return None

    def become_child(self) -> None:
        """Speak no more: called in processes that the code forks."""
        self.is_child = True


class OutStream(io.TextIOBase):
    """sys.stdout and sys.stderr of the cells. Called as ipykernel's, which error messages name."""

    encoding = "UTF-8"
    errors = "backslashreplace"

    def __init__(self, name: str, descriptor: int, front: Front) -> None:
        super().__init__()
        self.name = name
        self._descriptor = descriptor
        self.front = front
        self._held = ""

    def write(self, text: str, /) -> int:
        """Take text; a child process writes to the descriptor, as it shares no channel."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text)}")
        if self.front.is_child:
            self._held += text
            if "\n" in text:
                self.flush()
        elif text:
            self.front.write(self.name, text)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what was held back."""
        if self.front.is_child:
            held, self._held = self._held, ""
            write_all(self._descriptor, held)
        else:
            self.front.flush()

    def fileno(self) -> int:
        """Return the descriptor that subprocesses write to, so that they can be given this stream."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return False: nobody types here."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Stay open: what a cell closes by mistake the next one needs."""
        self.flush()


def write_all(descriptor: int, text: str) -> None:
    """Write text to a descriptor, as far as somebody reads it."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        pass


def to_json(content: dict[str, Any]) -> bytes:
    r"""Return a message's content as JSON; lone surrogates become \\u escapes, NaN stays NaN."""
    return _encode(content).encode("utf-8", "backslashreplace")


def _other(value: Any) -> Any:
    """Return what JSON can hold in place of a value, as Jupyter's own encoder does."""
    import base64
    import datetime
    import numbers

    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON: convert it to text before it is displayed")


_encode = json.JSONEncoder(ensure_ascii=False, default=_other, separators=(",", ":")).encode
