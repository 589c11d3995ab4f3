from __future__ import annotations

import base64
import json
import time
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_pool.content import limits_seen, without_colours
from sandbox_pool.messages import Cell, OutputLimits
from sandbox_pool.observation import Display, Error, Observation, Result, Status, Stream
from sandbox_pool.wire import Message

ID = "request"
PIXEL = b"\x89PNG\r\n\x1a\n not really"


def message(kind: str, content: object, parent: str = ID) -> Message:
    return Message(kind, parent, json.dumps(content).encode())


def fold(*messages: Message, limits: OutputLimits | None = None) -> Observation:
    cell = Cell(ID, limits or OutputLimits())
    for one in messages:
        cell.add("shell" if one.type.endswith("_reply") else "iopub", one)
    return cell.observation(duration_s=1.0, kernel_alive=True)


def stream(text: str, name: str = "stdout") -> Message:
    return message("stream", {"name": name, "text": text})


def display(data: dict[str, Any], **more: Any) -> Message:
    return message("display_data", {"data": data, "metadata": {}, **more})


def test_outputs_keep_their_order_and_streams_merge() -> None:
    """Neighbouring texts of one stream become one output; everything stays in the order it came."""
    result = message("execute_result", {"data": {"text/plain": "2"}, "execution_count": 1})
    seen = fold(stream("a"), stream("b"), stream("c", "stderr"), stream("d"), result)
    assert seen.outputs == (
        Stream("stdout", "ab"),
        Stream("stderr", "c"),
        Stream("stdout", "d"),
        Result({"text/plain": "2"}),
    )
    assert (seen.status, seen.n_output_bytes, seen.truncated) == (Status.OK, 5, False)


def test_done_needs_reply_and_idle() -> None:
    """A cell is done when shell has replied and iopub is idle, whichever comes first."""
    cell = Cell(ID, OutputLimits())
    assert not cell.has_reply
    assert cell.add("iopub", message("status", {"execution_state": "busy"}))
    assert not cell.is_idle
    cell.add("iopub", message("status", {"execution_state": "idle"}))
    cell.add("shell", message("execute_reply", {"status": "ok"}))
    assert (cell.has_reply, cell.is_idle) == (True, True)


def test_foreign_messages_are_dropped() -> None:
    """Output of another request, or of none, is no part of the observation."""
    cell = Cell(ID, OutputLimits())
    assert not cell.add("iopub", message("stream", {"name": "stdout", "text": "late"}, parent="other"))
    assert not cell.add("shell", message("execute_reply", {"status": "ok"}, parent=""))
    assert cell.observation(duration_s=0, kernel_alive=True).outputs == ()


def test_error_has_no_colours() -> None:
    """The traceback and the value of an error are free of terminal codes."""
    content = {
        "ename": "E",
        "evalue": "\x1b[31mred\x1b[0m",
        "traceback": ["\x1b[0;31mE\x1b[0m: x", "\x1b]8;;u\x07y"],
    }
    seen = fold(message("error", content))
    assert seen.error == Error("E", "red", "E: x\ny")
    assert seen.status is Status.ERROR


def test_head_and_tail_are_kept() -> None:
    """Of a long stream the start and the end stay, with a marker that counts what is missing."""
    seen = fold(*[stream(f"{n:09d}\n") for n in range(1000)], limits=OutputLimits(max_text_bytes=100))
    assert seen.truncated
    assert seen.n_output_bytes == 10_000
    assert seen.stdout.startswith("000000000\n")
    assert seen.stdout.endswith("000000999\n")
    assert "[9800 bytes of output not kept]" in seen.stdout


def test_marker_stands_where_text_is_missing() -> None:
    """What was displayed in the middle of a long stream stays between its head and its tail."""
    limits = OutputLimits(max_text_bytes=4)
    seen = fold(stream("aaaa"), display({"text/plain": "x"}), stream("b" * 20), limits=limits)
    texts = [type(output).__name__ for output in seen.outputs]
    assert texts == ["Stream", "Display", "Stream"]
    assert seen.stdout == "aaaa\n... [16 bytes of output not kept] ...\nbbbb"


def test_budget_ends_collection() -> None:
    """Over max_output_bytes nothing more is kept, and the cell says so."""
    cell = Cell(ID, OutputLimits(max_output_bytes=10_000))
    for _ in range(100):
        cell.add("iopub", stream("x" * 1000))
    assert cell.is_over_budget
    seen = cell.observation(Status.OUTPUT_LIMIT, duration_s=0, kernel_alive=True)
    assert len(seen.stdout) < 10_000
    assert seen.truncated


def test_pictures_are_decoded_within_limits() -> None:
    """A picture is bytes; one too large or too many leaves a note in the text instead."""
    good = base64.encodebytes(PIXEL).decode()
    limits = OutputLimits(max_images=2, max_image_bytes=100)
    big = base64.b64encode(bytes(101)).decode()
    seen = fold(
        display({"image/png": good, "text/plain": "<Figure>"}),
        display({"image/png": big, "text/plain": "<Figure>"}),
        display({"image/png": good}),
        limits=limits,
    )
    first, second, third = [cast("Display", output).data for output in seen.outputs]
    assert first == {"image/png": PIXEL, "text/plain": "<Figure>"}
    assert second == {"text/plain": "<Figure>\n[image/png of 101 bytes not kept]"}
    assert third == {"text/plain": f"[image/png of {len(PIXEL)} bytes not kept]"}
    assert seen.truncated


def test_svg_is_bytes_and_json_is_text() -> None:
    """SVG pictures come as text and are kept as bytes; JSON values become text."""
    seen = fold(display({"image/svg+xml": "<svg/>", "application/json": {"a": [1, None]}}))
    assert cast("Display", seen.outputs[0]).data == {
        "image/svg+xml": b"<svg/>",
        "application/json": '{"a": [1, null]}',
    }


@pytest.mark.parametrize("wait", [False, True])
def test_clear_output_is_honoured(wait: bool) -> None:
    """clear_output drops what was there; with wait, only when something else comes."""
    clear = message("clear_output", {"wait": wait})
    assert fold(stream("a"), clear, stream("b")).stdout == "b"
    assert fold(stream("a"), clear).stdout == ("a" if wait else "")


def test_update_display_replaces() -> None:
    """A display that is updated shows its last data, in its first place."""
    named = {"transient": {"display_id": "d"}}
    update = message("update_display_data", {"data": {"text/plain": "2"}, **named})
    seen = fold(display({"text/plain": "1"}, **named), stream("x"), update)
    assert seen.outputs == (Display({"text/plain": "2"}), Stream("stdout", "x"))


def test_many_updates_cost_little() -> None:
    """Thousands of updates of thousands of displays with one id are folded in time that grows with their number."""
    named = {"transient": {"display_id": "d"}}
    cell = Cell(ID, OutputLimits())
    began_at = time.process_time()
    for kind in ("display_data", "update_display_data"):
        for number in range(5000):
            cell.add("iopub", message(kind, {"data": {"text/plain": str(number % 10)}, **named}))
    assert time.process_time() - began_at < 5, "s; updating each display for each message takes 40"
    outputs = cell.observation(duration_s=1, kernel_alive=True).outputs
    assert outputs == (Display({"text/plain": "9"}),) * 5000


def test_exit_is_heard() -> None:
    """A reply that says that the kernel ends after the cell is understood; an odd payload is not one."""
    for payload, is_exiting in (
        ([{"source": "ask_exit"}], True),
        ([{"source": "page"}, 1], False),
        (1, False),
    ):
        cell = Cell(ID, OutputLimits())
        cell.add("shell", message("execute_reply", {"status": "ok", "payload": payload}))
        assert cell.is_exiting is is_exiting


def test_surrogates_become_printable() -> None:
    """Text with lone surrogates is kept as escapes that UTF-8 can hold."""
    raw = b'{"name": "stdout", "text": "a\\ud800b"}'
    seen = fold(Message("stream", ID, raw))
    assert seen.stdout == "a\\ud800b"


@pytest.mark.parametrize(
    ("ename", "evalue", "expected"),
    [
        ("MemoryError", "", ("memory",)),
        ("_ArrayMemoryError", "Unable to allocate 1 TiB", ("memory",)),
        ("OSError", "[Errno 28] No space left on device", ("disk",)),
        ("OSError", "[Errno 27] File too large", ("disk",)),
        ("BlockingIOError", "[Errno 11] Resource temporarily unavailable", ("pids",)),
        ("RuntimeError", "can't start new thread", ("pids",)),
        ("OSError", "[Errno 2] No such file", ()),
        ("ValueError", "MemoryError", ()),
    ],
)
def test_limits_are_recognised(ename: str, evalue: str, expected: tuple[str, ...]) -> None:
    """An exception that a limit of the sandbox causes is told from the model's own."""
    assert limits_seen(ename, evalue) == expected
    seen = fold(message("error", {"ename": ename, "evalue": evalue, "traceback": []}))
    assert seen.limits_hit == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["text", "name", "data", "ename", "evalue", "traceback", "execution_state", "transient"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [
        "stream", "display_data", "execute_result", "error", "status", "clear_output", "update_display_data",
        "execute_reply", "execute_input", "comm_open", "",
    ]
)  # fmt: skip
CONTENT = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30)
SOURCES: st.SearchStrategy[Literal["shell", "iopub"]] = st.sampled_from(["shell", "iopub"])


@given(st.lists(st.tuples(SOURCES, KINDS, CONTENT), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_messages_fold(messages: list[tuple[Literal["shell", "iopub"], str, bytes]]) -> None:
    """Whatever a kernel sends, folding does not raise, and the result can be written as UTF-8."""
    cell = Cell(ID, OutputLimits(max_text_bytes=16, max_images=1, max_image_bytes=10))
    for source, kind, content in messages:
        cell.add(source, Message(kind, ID, content))
    seen = cell.observation(duration_s=0, kernel_alive=True)
    repr(seen).encode()
    for output in seen.outputs:
        if isinstance(output, Stream):
            output.text.encode()
        elif isinstance(output, Error):
            (output.ename + output.evalue + output.traceback).encode()


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=40)), max_size=40))
def test_no_text_is_lost_within_limits(parts: list[tuple[str, str]]) -> None:
    """Any interleaving of short texts comes out whole, per stream."""
    seen = fold(*[stream(text, name) for name, text in parts])
    for name, got in (("stdout", seen.stdout), ("stderr", seen.stderr)):
        assert got == "".join(text for stream_name, text in parts if stream_name == name)


@given(st.lists(st.text("aé漢😀\n", max_size=30), max_size=60), st.integers(8, 40))
def test_clipped_text_is_bounded_and_counts(parts: list[str], limit: int) -> None:
    """Head and tail stay within their budgets, cut no character, and the marker counts exactly."""
    seen = fold(*[stream(text) for text in parts], limits=OutputLimits(max_text_bytes=limit))
    whole = "".join(parts)
    if not seen.truncated:
        assert seen.stdout == whole
        assert len(whole.encode()) <= 3 * limit
        return
    head, rest = seen.stdout.split("\n... [", 1)
    n_missing, tail = rest.split(" bytes of output not kept] ...\n", 1)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head.encode()) + int(n_missing) + len(tail.encode()) == len(whole.encode())
    assert len(head.encode()) <= limit + 3
    assert len(tail.encode()) <= limit


@given(st.text())
def test_colours_removal_is_stable(text: str) -> None:
    """Removing colour codes never raises and needs to be done only once on plain text."""
    plain = without_colours(text)
    if "\x1b" not in text:
        assert plain == text
