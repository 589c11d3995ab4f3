"""Lines of JSON over a socket, with descriptors beside them: how manager, zygote and init talk."""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

MAX_LINE_BYTES = 1024 * 1024
MAX_DESCRIPTORS = 64
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def read_line(descriptor: int) -> dict[str, Any] | None:
    """Return the first line; None at the end. What came with it but after it is dropped.

    Raises ValueError when it is no JSON object, or longer than 1 MiB.
    """
    line = b""
    while b"\n" not in line:
        data = os.read(descriptor, 65536)
        if not data:
            return None
        line += data
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
    return parse(line.partition(b"\n")[0])


def parse(line: bytes) -> dict[str, Any]:
    """Return the object in a line; raises ValueError when there is none."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError(f"no JSON object: {line[:100]!r}")
    return content


def encode(content: dict[str, Any]) -> bytes:
    """Return content as a line."""
    return json.dumps(content).encode() + b"\n"


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next line and the descriptors that came with it; None at the end.

    For talk in lock step: nothing may follow the line before it is answered.
    """
    line = b""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * descriptors.itemsize)
    while not line.endswith(b"\n"):
        try:
            data, ancillary, _, _ = connection.recvmsg(65536, room, _CLOEXEC)
        except ConnectionResetError:  # it hung up without reading our answer
            return None
        if not data or len(line) > MAX_LINE_BYTES:
            return None
        line += data
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return parse(line), list(descriptors)


def send(connection: socket.socket, content: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send a line with descriptors. Raises OSError when the other end is gone."""
    line = encode(content)
    n_sent = socket.send_fds(connection, [line], list(descriptors)) if descriptors else 0
    connection.sendall(line[n_sent:])
