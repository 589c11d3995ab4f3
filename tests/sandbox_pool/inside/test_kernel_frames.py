"""The private channel's bytes: whole frames, in order, whatever their size and whoever interrupts."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.inside.frames import (
    MAX_PIECE_CHARS,
    ChannelClosed,
    Pipes,
    Reader,
    Writer,
    encode_text,
    frame,
)


class Both:
    """A writer and what its reader has got."""

    def __init__(self, pipes: list[int] | None = None) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = ours
        self.writer = Writer(ours, Pipes(pipes or []))
        self.reader = Reader(self.theirs)

    def received(self) -> list[tuple[bytes, bytes]]:
        """Return all frames sent so far, and close both ends."""
        self.ours.close()
        found = []
        while (next_one := self.reader.receive()) is not None:
            found.append(next_one)
            self.reader.accept()
        self.theirs.close()
        return found


@pytest.fixture(name="both")
def _both() -> Iterator[Both]:
    both = Both()
    yield both
    both.ours.close()
    both.theirs.close()


@given(
    st.lists(st.tuples(st.sampled_from([b"o", b"e"]), st.text(st.characters(), max_size=30)), max_size=20),
    st.booleans(),
)
def test_text_arrives_in_order(texts: list[tuple[bytes, str]], send_often: bool) -> None:
    """All text arrives, in order per stream and between streams, surrogates as escapes."""
    both = Both()
    for kind, text in texts:
        both.writer.add_text(kind, text)
        if send_often:
            both.writer.send()
    both.writer.send()
    expected: list[tuple[bytes, bytes]] = []
    for kind, text in texts:
        expected += [(kind, encode_text(text)[n : n + 1]) for n in range(len(encode_text(text)))]
    got = [(kind, payload[n : n + 1]) for kind, payload in both.received() for n in range(len(payload))]
    assert got == expected


def test_large_text_is_cut_and_does_not_deadlock(both: Both) -> None:
    """Megabytes cross a socket that holds less, in frames of at most 64 KiB."""
    text = "é漢😀\ud800" * 200_000
    got: list[tuple[bytes, bytes]] = []

    def read() -> None:
        while (found := both.reader.receive()) is not None:
            got.append(found)
            both.reader.accept()

    reading = threading.Thread(target=read)
    reading.start()
    both.writer.add_text(b"o", text)
    both.writer.add_frames(frame(b"i", b"x" * 3_000_000))
    both.writer.add_text(b"o", "end")
    both.writer.send()
    both.ours.shutdown(socket.SHUT_WR)
    reading.join()
    assert b"".join(payload for kind, payload in got if kind == b"o") == encode_text(text) + b"end"
    assert [len(payload) for kind, payload in got if kind == b"i"] == [3_000_000]
    assert max(len(payload) for kind, payload in got if kind == b"o") <= 6 * MAX_PIECE_CHARS < 65536


def test_small_texts_share_a_frame(both: Both) -> None:
    """What print() writes in pieces is one frame; another stream begins another."""
    for kind, text in ((b"o", "a"), (b"o", " "), (b"o", "b\n"), (b"e", "c"), (b"o", "d")):
        both.writer.add_text(kind, text)
    both.writer.send()
    assert both.received() == [(b"o", b"a b\n"), (b"e", b"c"), (b"o", b"d")]


def test_threads_do_not_mix_frames(both: Both) -> None:
    """Frames of many threads arrive whole."""

    def work(n: int) -> None:
        for _ in range(200):
            both.writer.add_frames(frame(b"i", str(n).encode() * 50))
            both.writer.send()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    got = []
    for thread in threads:
        thread.start()
    for _ in range(1000):
        found = both.reader.receive()
        assert found is not None
        got.append(found[1])
        both.reader.accept()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(str(n).encode() * 50 for n in range(5) for _ in range(200))


def test_a_request_is_the_next_one_until_accepted(both: Both) -> None:
    """Receiving twice gives the same frame; accepting twice costs no other."""
    both.writer.add_frames(frame(b"x", b"1") + frame(b"x", b"2"))
    both.writer.send()
    assert both.reader.receive() == both.reader.receive() == (b"x", b"1")
    both.reader.accept()
    both.reader.accept()
    assert both.reader.receive() == (b"x", b"2")


def test_hang_up(both: Both) -> None:
    """A reader that is gone is told apart from an error of the code, and a half frame is none."""
    both.theirs.close()
    both.writer.add_text(b"o", "x")
    with pytest.raises(ChannelClosed):
        both.writer.send()
    other = Both()
    other.ours.sendall(b"x\0\0\0\5abc")
    assert other.received() == []


class Interrupting:
    """A socket whose every other send is followed by an exception of the code's signal handler."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.n_sends = 0

    def send(self, data: bytes, flags: int) -> int:
        self.n_sends += 1
        if self.n_sends % 2:
            raise TimeoutError  # it has no errno
        return self._sock.send(data[: self.n_sends * 7], flags)  # and the socket takes only so much

    def fileno(self) -> int:
        return self._sock.fileno()


def test_an_exception_within_send_tears_nothing() -> None:
    """After exceptions at any send, sending again goes on where it broke off."""
    both = Both()
    both.writer._sock = Interrupting(both.ours)  # type: ignore[assignment] # there is no such socket otherwise
    both.writer.add_text(b"o", "first" * 100)
    both.writer.add_frames(frame(b"i", b"second" * 100))
    for _ in range(100):
        with suppress(TimeoutError):
            both.writer.send()
    assert both.received() == [(b"o", b"first" * 100), (b"i", b"second" * 100)]


def test_raw_output_goes_first() -> None:
    """A frame waits until the pipe has been read, but not for ever."""
    reading, writing = os.pipe()
    both = Both([writing])
    os.write(writing, b"raw")
    emptied = threading.Timer(0.1, os.read, (reading, 10))
    emptied.start()
    both.writer.add_text(b"o", "after")
    both.writer.send()
    assert both.writer._pipes.is_empty()
    emptied.join()
    os.write(writing, b"raw")
    both.writer._pipes.patience_s = 0.05
    both.writer.add_text(b"o", "!")
    both.writer.send()
    assert both.received() == [(b"o", b"after"), (b"o", b"!")]
    os.close(reading)
    os.close(writing)
