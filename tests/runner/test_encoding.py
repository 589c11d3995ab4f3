"""Any record becomes one JSON line."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.encoding import MAX_DEPTH, encode_line

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))  # lone surrogates included
    | st.binary()
    | st.complex_numbers()
    | st.dates(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), inner)
    ),
    max_leaves=20,
)


@given(anything)
def test_any_value_is_one_line_that_can_be_read(value: object) -> None:
    """Whatever a model or kernel produced, the line is whole, single and valid JSON."""
    line = encode_line({"value": value})

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert isinstance(orjson.loads(line), dict)


@given(st.text())
def test_text_without_surrogates_is_unchanged(text: str) -> None:
    """Ordinary text survives the round trip."""
    assert text == orjson.loads(encode_line({"t": text}))["t"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("a\ud800b", "a\\ud800b", id="lone-surrogate"),
        pytest.param(2**64, str(2**64), id="integer-over-64-bits"),
        pytest.param(-(2**63) - 1, str(-(2**63) - 1), id="integer-under-64-bits"),
        pytest.param(math.nan, None, id="nan"),
        pytest.param({1: "x"}, {"1": "x"}, id="key-that-is-no-string"),
        pytest.param({"\udfff": 1}, {"\\udfff": 1}, id="surrogate-in-a-key"),
    ],
)
def test_what_orjson_refuses(value: object, expected: object) -> None:
    """What has no JSON form gets the documented one."""
    assert expected == orjson.loads(encode_line({"v": value, "surrogate": "\ud800"}))["v"]


def test_integer_too_long_for_decimal_text() -> None:
    """An integer of a million bits does not raise."""
    assert orjson.loads(encode_line({"v": 1 << 1_000_000}))["v"].startswith("0x1")


def test_deep_nesting_becomes_text() -> None:
    """A list nested deeper than any reader goes is cut, not fatal."""
    value: list[object] = []
    for _ in range(MAX_DEPTH * 10):
        value = [value]

    assert orjson.loads(encode_line({"v": value}))


class _Unknown:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_object_whose_str_raises() -> None:
    """An unknown object is named by its type."""
    assert orjson.loads(encode_line({"v": _Unknown()})) == {"v": "<_Unknown: RuntimeError>"}
