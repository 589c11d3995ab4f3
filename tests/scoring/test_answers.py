from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.answers import answer_json, answer_number, answer_text, folded


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Answer: 42", 42),
        ("First Answer: 1\nbut no.\nAnswer: 2", 2),
        ("Answer: 1,234,567.5 EUR", 1234567.5),
        ("**Answer:** -3.5e-2.", -0.035),
        ("**Answer**: 6 apples", 6),
        ("Answer:\n\n 7 \nthat is less than 8", 7),
        ("Answer: \N{MINUS SIGN}7", -7),
        ("Answer: .5", 0.5),
        ("Answer: x2 = 3-5", 5),
        ("answer: 10 %", 10),
        ("I found 3.\nThe total is 12.", 12),
        ("Answer: none", None),
        ("", None),
    ],
)
def test_number_is_the_last_in_the_line_of_the_answer(reply: str, number: float | None) -> None:
    """Separators, signs, units, Markdown and what is said before or after do not matter."""
    assert answer_number(reply) == number


@pytest.mark.parametrize(
    "reply", ["Answer: Zürich", "answer: **zürich.**", "It is\n zu\u0308rich .", 'Answer: "ZÜRICH"']
)
def test_text_is_compared_without_its_dress(reply: str) -> None:
    """Case, quotes, Markdown, Unicode form and a full stop do not make another answer."""
    assert answer_text(reply) == folded("Zürich")


@pytest.mark.parametrize(
    "reply",
    [
        'Answer: {"a": [1, 2]}',
        'Answer:\n```json\n{"a":\n [1, 2]}\n```\nDone.',
        '{"a": [1, 2]}',
        '**Answer:** `{"a": [1,2]}`',
    ],
)
def test_json_may_be_fenced_and_followed_by_text(reply: str) -> None:
    """The value that the answer begins with counts."""
    assert answer_json(reply) == {"a": [1, 2]}


@pytest.mark.parametrize("reply", ["Answer: nothing", "Answer: NaN", "Answer: " + "[" * 100_000, ""])
def test_what_is_no_json_is_a_value_error(reply: str) -> None:
    """NaN, nesting without end and plain text are refused in one way."""
    with pytest.raises(ValueError, match="not JSON"):
        answer_json(reply)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.text() | st.text(alphabet='answer:Answer 0123456789.,-+eE\n*`[]{}"').map("Answer: ".__add__))
def test_any_reply_is_read(reply: str) -> None:
    """No text whatsoever makes the readers of answers raise anything but ValueError for JSON."""
    answer_number(reply)
    answer_text(reply)
    with contextlib.suppress(ValueError):
        answer_json(reply)
