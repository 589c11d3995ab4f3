"""A TCP proxy in front of a model server that breaks answers as networks and servers do."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Fault = str
"""One of FAULTS, or "" for none."""

ENGINE_DEAD = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b'"type":"InternalServerError","code":500}}'
)


def _refusal(status: str, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS: Mapping[Fault, bytes] = {
    "429": _refusal("429 Too Many Requests"),
    "429-later": _refusal("429 Too Many Requests", b"{}", "Retry-After: 0.05"),
    "503": _refusal("503 Service Unavailable"),
    "500-engine": _refusal("500 Internal Server Error", ENGINE_DEAD),
    "garbage": _refusal("200 OK", b"<html>gateway</html>"),
    "empty": _refusal("200 OK", b""),
    "no-choices": _refusal("200 OK", b'{"choices":[]}'),
}
FAULTS: Sequence[Fault] = (*ANSWERS, "reset", "reset-mid-body", "half", "close", "slow")


def at_random(share: float, seed: int, faults: Sequence[Fault] = FAULTS) -> Callable[[], Fault]:
    """Return a plan that breaks this share of all requests, each with one of the faults."""
    chance = random.Random(seed)
    return lambda: chance.choice(list(faults)) if chance.random() < share else ""


@dataclass
class FaultProxy:
    """Listens on a port of 127.0.0.1; `next_fault` is asked before each chat completion."""

    upstream_port: int
    next_fault: Callable[[], Fault] = lambda: ""
    port: int = 0
    done: Counter[Fault] = field(default_factory=Counter)
    """What it did, "" for answers that it passed on."""

    async def __aenter__(self) -> FaultProxy:
        self._writers: set[asyncio.StreamWriter] = set()
        self._n_open = 0
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0.02)  # connections that were accepted in the last moment
        while self._n_open:
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._n_open += 1
        self._writers.add(writer)
        try:
            while (request := await _read_message(reader)) is not None:
                fault = self.next_fault() if b"/chat/completions" in request[:200] else ""
                self.done[fault] += 1
                if not await self._answer(writer, request, fault):
                    return
        except (ConnectionError, RuntimeError, asyncio.IncompleteReadError):
            pass  # RuntimeError: uvloop's word for a transport that was aborted
        finally:
            self._n_open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, request: bytes, fault: Fault) -> bool:
        """Return whether the connection can take another request."""
        if fault in ANSWERS:
            writer.write(ANSWERS[fault])
            await writer.drain()
            return True
        if fault == "reset":
            _reset(writer)
            return False
        if fault == "close":
            return False
        if fault == "slow":
            await asyncio.sleep(0.3)
        answer = await self._ask(request)
        if fault in ("half", "reset-mid-body"):
            writer.write(answer[: len(answer) - 20])
            await writer.drain()
            if fault == "reset-mid-body":
                _reset(writer)
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        try:
            writer.write(request)
            answer = await _read_message(reader)
            if answer is None:
                raise ConnectionError("the server closed the connection")
            return answer
        finally:
            writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes | None:
    """Return one HTTP message with a Content-Length, or None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    n_bytes = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            n_bytes = int(value)
    return head + await reader.readexactly(n_bytes)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
