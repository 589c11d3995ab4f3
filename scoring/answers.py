"""Finds the answer in a final reply. Pure; never raises on any text.

The answer follows the last `Answer:`; without one it is the last line.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, NoReturn

_MARKER = re.compile(r"\banswer\b[*_`]*\s*:[*_`]*", re.IGNORECASE)
_EXPONENT = r"(?:[eE][-+]?[0-9]+)?"
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:"
    rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?{_EXPONENT}|\.[0-9]+{_EXPONENT})"
)
_FENCE = re.compile(r"^\s*`{1,3}(?:json)?\s*")


def after_marker(reply: str) -> str:
    """Return all that follows the last `Answer:`, else the last line that is not blank."""
    markers = list(_MARKER.finditer(reply))
    if markers:
        return reply[markers[-1].end() :].strip()
    lines = [line for line in reply.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def answer_line(reply: str) -> str:
    """Return the first line of the answer that is not blank, without Markdown around it."""
    lines = after_marker(reply).splitlines()
    return lines[0].strip(" \t*`") if lines else ""


def answer_number(reply: str) -> float | None:
    """Return the last number in the line of the answer (`1,234.5` is one number), or None."""
    line = answer_line(reply).replace("\N{MINUS SIGN}", "-")
    found = _NUMBER.findall(line)
    return float(found[-1].replace(",", "")) if found else None


def answer_text(reply: str) -> str:
    """Return the line of the answer as texts are compared: see `folded`."""
    return folded(answer_line(reply))


def folded(text: str) -> str:
    """Return a text without case, outer white space, outer quotes and a full stop at the end."""
    text = unicodedata.normalize("NFC", text).strip(" \t\n*`\"'")
    return text.removesuffix(".").rstrip(" *`\"'").casefold()


def answer_json(reply: str) -> Any:
    """Return the JSON value that the answer begins with; a code fence around it does not count.

    Raises:
        ValueError: the answer does not begin with JSON; says what it begins with.
    """
    text = _FENCE.sub("", after_marker(reply).lstrip("*"))
    try:
        return json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)[0]
    except (ValueError, RecursionError):
        raise ValueError(f"not JSON: {text[:60]!r}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
