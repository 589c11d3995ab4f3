"""Two runs of one action: what must agree, and what may differ by nature."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.trajectory.divergence import first_difference


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": text}


def record(*outputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"status": "ok", "outputs": list(outputs), "kernel_alive": True, "duration_s": 1.0, **changes}


SAME = [
    ("<object at 0x7f3a2b1c>", "<object at 0x55d1e0aa>"),
    ("took 1.23 s", "took 4.5 s"),
    ("CPU times: user 3.1 ms, sys: 12 µs, total: 3.2 ms", "CPU times: user 9 ms, sys: 1 µs, total: 9.1 ms"),
    ("1.2 µs ± 30 ns per loop (mean ± std. dev. of 7 runs, 1000000 loops each)", "900 ns ± 8.1 ns per loop (mean ± std. dev. of 7 runs, 100 loops each)"),
    ("2026-11-21 10:00:01.123 INFO ready", "2026-11-22 23:59:59,7 INFO ready"),
    ("wrote /tmp/tmpab12cd34/x", "wrote /tmp/tmpzz99_1xy/x"),
    ("id 0b1f2c3d-1111-4222-8333-444455556666", "id ffffffff-1111-4222-8333-444455556666"),
    (" 10%|█| 1/9 [00:01<00:09, 1.1s/it]\r100%|█| 9/9 [00:03<00:00,  2.9it/s]", "100%|█| 9/9 [00:07<00:00,  1.3it/s]"),
    ("\x1b[31mred\x1b[0m", "red"),
]  # fmt: skip
DIFFERENT = [
    ("total 42", "total 43", "output 1 (stdout), line 1: 'total 42' before, 'total 43' now"),
    ("a\nb\nc", "a\nB\nc", "output 1 (stdout), line 2: 'b' before, 'B' now"),
    ("0.123456789", "0.123456780", "output 1 (stdout), line 1"),
    ("2026-11-21", "2026-11-22", "output 1 (stdout), line 1"),
    ("1,2", "1,2\n3", "output 1 (stdout), line 2: '' before, '3' now"),
    ("12 seconds of 13", "12 seconds of 14", "output 1 (stdout), line 1"),
]


@pytest.mark.parametrize(("before", "after"), SAME)
def test_what_varies_by_nature_agrees(before: str, after: str) -> None:
    """Addresses, durations, times of day, temporary names, progress bars."""
    assert first_difference(record(stream(before)), record(stream(after))) is None


@pytest.mark.parametrize(("before", "after", "words"), DIFFERENT)
def test_what_the_code_says_must_agree(before: str, after: str, words: str) -> None:
    """Results, dates without a time of day, lines more or less: the first is named."""
    assert (first_difference(record(stream(before)), record(stream(after))) or "").startswith(words)


def test_chunks_of_a_stream_are_one() -> None:
    """Where output was cut into messages is timing."""
    split = record(stream("a"), stream("b\n"), stream("c"), stream("warn", "stderr"))
    assert first_difference(split, record(stream("ab\nc"), stream("warn", "stderr"))) is None
    assert first_difference(split, record(stream("ab\nc"))) == "output 2: stderr before, nothing now"


def test_how_it_ended_must_agree() -> None:
    """Another status, or a dead kernel, is a difference whatever was printed."""
    assert first_difference(record(), record(status="error")) == "status: ok before, error now"
    assert first_difference(record(), record(kernel_alive=False)) == "kernel_alive: True before, False now"
    assert (
        first_difference(record(stream("1")), record(stream("1"), duration_s=9.0, peak_memory_bytes=7))
        is None
    )


def test_cut_output_is_timing() -> None:
    """What a cell had printed when its time was over depends on the machine."""
    before, after = record(stream("1 2 3"), status="timeout"), record(stream("1 2"), status="timeout")
    assert first_difference(before, after) is None


def test_errors_pictures_and_results() -> None:
    """An error counts by name and value, a picture by being there, a result by its text."""
    error = {"type": "error", "ename": "E", "evalue": "v", "traceback": "line 1"}
    assert first_difference(record(error), record(error | {"traceback": "line 2"})) is None
    assert "error" in (first_difference(record(error), record(error | {"evalue": "w"})) or "")
    recorded = {
        "type": "display",
        "data": {"image/png": {"path": "a", "bytes": 5, "sha256": "x"}, "text/plain": "<Figure>"},
    }
    now = {"type": "display", "data": {"image/png": {"bytes": 7}, "text/plain": "<Figure>"}}
    assert first_difference(record(recorded), record(now)) is None
    assert first_difference(record(recorded), record()) == "output 1: display image/png before, nothing now"
    result = {"type": "result", "data": {"text/plain": "3"}}
    assert (
        first_difference(record(result), record({"type": "result", "data": {"text/plain": "4"}})) is not None
    )


@given(st.text(max_size=300), st.sampled_from(["stdout", "stderr"]))
def test_anything_agrees_with_itself(text: str, name: str) -> None:
    """However it looks."""
    assert first_difference(record(stream(text, name)), record(stream(text, name))) is None


@pytest.mark.parametrize(
    "text", ["9" * 1_000_000, "1:" * 500_000, "0x" + "f" * 1_000_000, "tmp" * 300_000, "12 ms " * 170_000]
)
def test_long_outputs_take_no_time(text: str) -> None:
    """No pattern backtracks for ever on a megabyte."""
    began_at = time.perf_counter()
    assert (
        first_difference(record(stream(text + "1")), record(stream(text + "2"))) is not None or "ms" in text
    )
    assert time.perf_counter() - began_at < 5
