"""Frames of the private channel: cut as they were made, whatever the pieces; nothing huge is held."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.frames import KINDS, BrokenStream, FrameReader, encode_request


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=40)), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_frames_come_out_as_they_went_in(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However a stream is split, the frames within the limit are read, and the rest is counted."""
    reader = FrameReader(30)
    stream = b"".join(frame(kind, payload) for kind, payload in frames)
    read = [found for piece in pieces(stream, cuts) for found in reader.feed(piece)]
    assert read == [(kind, payload) for kind, payload in frames if len(payload) <= 30]
    assert reader.take_skipped() == sum(len(payload) for _, payload in frames if len(payload) > 30)
    assert reader.take_skipped() == 0


def test_a_frame_too_long_is_counted_and_not_held() -> None:
    """Four gigabytes are announced: what comes of them is counted at once, and no byte of it is kept."""
    reader = FrameReader(1000)
    assert list(reader.feed(b"i")) == []
    assert list(reader.feed(b"\xff\xff\xff\xff" + b"x" * 5000)) == []
    assert reader.take_skipped() == 5000
    for _ in range(100):
        assert list(reader.feed(b"x" * 100_000)) == []
    assert reader.take_skipped() == 10_000_000
    assert len(reader._buffer) == 0


def test_an_unknown_kind_breaks_the_stream() -> None:
    """What is no frame cannot be skipped, for nobody knows where it ends."""
    with pytest.raises(BrokenStream, match="kind 90"):
        list(FrameReader(10).feed(b"Z\0\0\0\0"))


def test_a_request_has_three_parts() -> None:
    """A request is one frame with type, id and content between zero bytes."""
    assert encode_request("kind", "id", b"{}") == b"x\0\0\0\x0akind\0id\0{}"
