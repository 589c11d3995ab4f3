from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.compare import (
    difference,
    is_close,
    lines_difference,
    rows_difference,
    same_cell,
    show,
    unordered_difference,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(JSON.filter(lambda value: "nan" not in repr(value) and "inf" not in repr(value)))
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    """Comparison is reflexive for all JSON values."""
    assert difference(value, value, 0.0) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(JSON, JSON)
def test_any_two_values_can_be_compared_and_shown(expected: Any, actual: Any) -> None:
    """Comparison and the texts about it never raise."""
    difference(expected, actual, 0.1)
    same_cell(expected, actual, 0.1)
    assert len(show(actual)) <= 120


@pytest.mark.parametrize(
    ("expected", "actual", "text"),
    [
        ({"a": [1, 2]}, {"a": [1, 3]}, "['a'][1]: 3, expected 2"),
        ({"a": 1}, {}, "the value: no key 'a', expected 1 there"),
        ({}, {"b": 1}, "the value: unexpected key 'b'"),
        ([1], [1, 2], "the value: 2 items, expected 1: [1, 2]"),
        (1, True, "the value: True, expected 1"),
        (True, 1, "the value: 1, expected True"),
        ("1", 1, "the value: 1, expected '1'"),
        (None, 0, "the value: 0, expected None"),
        ([], {}, "the value: {}, expected []"),
    ],
)
def test_a_difference_says_where_and_what(expected: Any, actual: Any, text: str) -> None:
    """The first difference is named with its place, what is there and what should be."""
    assert difference(expected, actual, 0.0) == text


def test_numbers_are_compared_within_the_larger_tolerance() -> None:
    """Absolute and relative tolerance each suffice; the last bit of a double does not decide."""
    assert is_close(0.2, 0.3, abs_tol=0.1)
    assert not is_close(0.2, 0.301, abs_tol=0.1)
    assert is_close(1e9, 1.001e9, abs_tol=0.0, rel_tol=1e-3)
    assert is_close(10**400, 10**400, abs_tol=0.0)


@pytest.mark.parametrize(
    "actual", [math.nan, math.inf, 10**5000, True, "1", None, [1]], ids=lambda value: type(value).__name__
)
def test_what_is_no_finite_number_is_close_to_none(actual: Any) -> None:
    """Neither NaN, infinity, a huge integer, a bool nor text passes for a number."""
    assert not is_close(1.0, actual, abs_tol=1e9 if isinstance(actual, float) else 0.1)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(1.5, " 1.50 "), (None, ""), (None, "NaN"), (None, None), (True, "true"), ("x", " x "), ("007", "007"),
     ("2024-01-05", "2024-01-05 00:00:00"), (3, 3.0)],
)  # fmt: skip
def test_a_cell_may_be_text(expected: Any, actual: Any) -> None:
    """In a CSV file everything is text; dates may carry a midnight."""
    assert same_cell(expected, actual, 1e-6)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(1.5, "1,5"), (1000, "1_000"), (0, ""), (None, "0"), (True, 1), (True, "1"), ("7", "007"), ("x", "X"),
     (1, "nan"), ("2024-01-05", "2024-01-05 12:00:00")],
)  # fmt: skip
def test_a_cell_of_another_value_is_another(expected: Any, actual: Any) -> None:
    """Zero is not empty, case counts, and Python's own spellings of numbers are no CSV numbers."""
    assert not same_cell(expected, actual, 1e-6)


def test_rows_are_compared_in_order() -> None:
    """The reason names row and column."""
    assert rows_difference([["a", 1]], [["a", "2"]], ["name", "n"], 0) == "row 1, column n: '2', expected 1"
    assert rows_difference([["a", 1]], [], ["name", "n"], 0) == "0 rows, expected 1"
    assert rows_difference([["a", 1]], [["a"]], ["name", "n"], 0) == "row 1: ['a'], expected ['a', 1]"
    assert rows_difference([["a", 1]], ["a"], ["name", "n"], 0) is not None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.permutations([[1, "a"], [1, "a"], [2, "b"], [3, None]]))
def test_rows_in_any_order_are_the_same_set(rows: list[list[Any]]) -> None:
    """Order does not count where the check says so, multiplicity does."""
    assert unordered_difference([[1, "a"], [1, "a"], [2, "b"], [3, None]], rows, 0) is None
    assert unordered_difference([[1, "a"], [2, "b"], [2, "b"], [3, None]], rows, 0) == "no row [2, 'b']"


def test_lines_ignore_what_cannot_be_seen() -> None:
    """Line ends, white space at the end of a line and blank lines at the end do not count."""
    assert lines_difference(["a", "", "b"], "a  \r\n\r\nb\n\n") is None
    assert lines_difference(["a"], " a") == "line 1: ' a', expected 'a'"
    assert lines_difference(["a", "b"], "a") == "1 lines, expected 2"
    assert lines_difference([], "") is None
