from __future__ import annotations

import gc
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from sandbox_pool.wire import BadMessage, Message, decode, encode, sign

KEY = b"key"


def frames(*parts: bytes, key: bytes = KEY) -> list[bytes]:
    return [b"topic", b"<IDS|MSG>", sign(key, parts), *parts]


def test_jupyter_reads_what_we_write() -> None:
    """jupyter_client's Session accepts our signature and sees our content."""
    session = Session(key=KEY)
    msg_id, sent = encode(KEY, "execute_request", {"code": "é"})
    _, rest = session.feed_identities(sent)
    read = session.deserialize(rest)
    assert read["header"]["msg_id"] == msg_id
    assert (read["msg_type"], read["content"]) == ("execute_request", {"code": "é"})


def test_we_read_what_jupyter_writes() -> None:
    """A message of jupyter_client's Session comes through, with its parent's id."""
    session = Session(key=KEY)
    message = session.msg("stream", {"text": "x"}, parent={"msg_id": "p"})
    assert decode(KEY, session.serialize(message, ident=b"topic")) == Message("stream", "p", b'{"text":"x"}')


def test_ids_are_not_repeated() -> None:
    """Two requests never have the same id."""
    assert len({encode(KEY, "x", {})[0] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [b"<IDS|MSG>"],
        frames(b'{"msg_type": "x"}', b"{}", b"{}", b"{}", key=b"other"),
        frames(b"[]", b"{}", b"{}", b"{}"),
        frames(b'{"msg_type": 1}', b"{}", b"{}", b"{}"),
        frames(b'{"msg_type": "x"}', b'{"msg_id": []}', b"{}", b"{}"),
        frames(b"\xff", b"{}", b"{}", b"{}"),
        frames(b"[" * 100_000, b"{}", b"{}", b"{}"),
    ],
)
def test_bad_messages_are_refused(bad: list[bytes]) -> None:
    """Frames without delimiter, signature or shape are BadMessage, and nothing else."""
    with pytest.raises(BadMessage):
        decode(KEY, bad)


def test_deep_nesting_costs_no_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is collected while a message uses up the stack is finalized all the same."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    class Needy:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            dig(100)

    def dig(n_deep: int) -> None:
        if n_deep:
            dig(n_deep - 1)

    message = frames(b"[" * 100_000, b"{}", b"{}", b"{}")
    thresholds = gc.get_threshold()
    try:
        for n_allocations in range(700, 1000, 10):
            gc.collect()
            Needy()
            gc.set_threshold(n_allocations)
            with pytest.raises(BadMessage):
                decode(KEY, message)
            assert gc.isenabled()
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    assert lost == []


@given(st.lists(st.binary(max_size=20) | st.just(b"<IDS|MSG>"), max_size=8))
def test_any_frames_are_read_or_refused(garbage: list[bytes]) -> None:
    """Whatever arrives unsigned is BadMessage."""
    with pytest.raises(BadMessage):
        decode(KEY, garbage)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_any_signed_frames_are_read_or_refused(header: bytes, parent: bytes, content: bytes) -> None:
    """Signed nonsense is BadMessage when it is read, and never anything else."""
    try:
        decode(KEY, frames(header, parent, b"", content)).content()
    except BadMessage:
        return


def test_python_json_is_read() -> None:
    """NaN and lone surrogates, which JSON has not and Python's encoder writes, are read."""
    assert Message("x", "", b'{"a": NaN}').content()["a"] != 0
    assert Message("x", "", b'{"a": "\\ud800"}').content() == {"a": "\ud800"}
