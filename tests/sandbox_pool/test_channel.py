"""The manager's end of a lean kernel against a peer that the test plays."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from sandbox_pool.channel import PrivateChannel, Source, StreamName
from sandbox_pool.wire import Message


@dataclass
class Heard:
    said: list[tuple[str, object]] = field(default_factory=list)

    def on_ready(self) -> None:
        self.said.append(("ready", None))

    def on_message(self, source: Source, message: Message) -> None:
        self.said.append((source, message))

    def on_text(self, name: StreamName, data: bytes) -> None:
        self.said.append((name, data))

    def on_skipped(self, n_bytes: int) -> None:
        self.said.append(("skipped", n_bytes))

    def on_cut_off(self) -> None:
        self.said.append(("cut off", None))

    def on_garbage(self, problem: str) -> None:
        self.said.append(("garbage", problem))


@dataclass
class Peer:
    kernel: socket.socket
    stdout: int
    stderr: int
    heard: Heard
    channel: PrivateChannel

    def send(self, kind: bytes, payload: bytes) -> None:
        self.kernel.sendall(kind + len(payload).to_bytes(4, "big") + payload)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    heard = Heard()
    channel = PrivateChannel(ours, stdout, stderr, heard, max_frame_bytes=100_000)
    yield Peer(theirs, stdout_write, stderr_write, heard, channel)
    channel.close()
    channel.close()
    theirs.close()
    os.close(stdout_write)
    os.close(stderr_write)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.001)


async def test_socket_before_pipes(peer: Peer) -> None:
    """What came by the socket is heard before what lies in a pipe, whichever the loop looks at first."""
    os.write(peer.stdout, b"raw")
    os.write(peer.stderr, b"raw error")
    peer.send(b"o", b"printed")
    peer.send(b"i", b'status\0id\0{"a":1}')
    peer.channel.drain()
    assert peer.heard.said == [
        ("stdout", b"printed"),
        ("iopub", Message("status", "id", b'{"a":1}')),
        ("stdout", b"raw"),
        ("stderr", b"raw error"),
    ]


async def test_all_kinds_are_told_apart_by_the_loop(peer: Peer) -> None:
    """Ready, text, messages and the end arrive without being asked for."""
    peer.send(b"r", b"")
    peer.send(b"e", b"oh")
    peer.send(b"s", b"execute_reply\0id\0{}")
    peer.send(b"i", b"nothing between")
    peer.kernel.shutdown(socket.SHUT_WR)
    await until(lambda: ("cut off", None) in peer.heard.said)
    assert peer.heard.said == [
        ("ready", None),
        ("stderr", b"oh"),
        ("shell", Message("execute_reply", "id", b"{}")),
        ("garbage", "a message that is none"),
        ("cut off", None),
    ]


async def test_a_stream_of_nonsense_is_garbage_once(peer: Peer) -> None:
    """A kernel whose bytes are no frames is heard no more, and the loop has nothing to do for it."""
    peer.kernel.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    await until(lambda: peer.heard.said)
    peer.kernel.sendall(b"more")
    await asyncio.sleep(0.01)
    assert [kind for kind, _ in peer.heard.said] == ["garbage"]


async def test_a_message_too_long_is_skipped(peer: Peer) -> None:
    """Its size is told, and what follows is read."""
    peer.kernel.sendall(b"i" + (400_000).to_bytes(4, "big") + b"x" * 150_000)
    await until(lambda: peer.heard.said)
    peer.kernel.setblocking(False)
    rest = bytes(250_000) + b"o\0\0\0\2ok"
    while rest:
        try:
            rest = rest[peer.kernel.send(rest) :]
        except BlockingIOError:
            await asyncio.sleep(0.001)
    await until(lambda: ("stdout", b"ok") in peer.heard.said)
    assert sum(n for kind, n in peer.heard.said if kind == "skipped" and isinstance(n, int)) == 400_000


async def test_a_request_larger_than_the_socket_holds(peer: Peer) -> None:
    """Megabytes of code are sent as the kernel takes them, without blocking the loop, in order."""
    first = peer.channel.request("execute_request", {"code": "x" * 3_000_000})
    second = peer.channel.request("execute_request", {"code": "y"})
    assert first != second
    peer.kernel.setblocking(False)
    got = b""
    async with asyncio.timeout(10):
        while len(got) < 3_000_000 or second.encode() not in got:
            try:
                got += peer.kernel.recv(1_000_000)
            except BlockingIOError:
                await asyncio.sleep(0.001)
    assert got.index(first.encode()) < got.index(second.encode())


async def test_a_request_to_a_dead_kernel(peer: Peer) -> None:
    """It is an OSError, which the sandbox turns into an observation."""
    peer.kernel.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        peer.channel.request("execute_request", {})
