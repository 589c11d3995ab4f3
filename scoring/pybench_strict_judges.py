"""Judges PyBench's strict checks. Pure: one small function a kind, as in `pybench_judges`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from scoring.compare import show, whole_number
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench_strict_checks import AnswerHas, PictureDrawn


def _answer_has(check: AnswerHas, answer: str) -> str | None:
    for words in check.all_of:
        if not any(_has_word(word, answer) for word in words):
            return f"the answer has none of {show(words)}"
    return None


def _has_word(word: str, text: str) -> bool:
    # Chinese has no spaces between words.
    start = r"(?<![a-z0-9_])" if word[0].isascii() else ""
    end = r"(?![a-z0-9_])" if word[-1].isascii() else ""
    return re.search(start + re.escape(word.lower()) + end, text.lower()) is not None


def _picture_drawn(check: PictureDrawn, facts: Facts) -> str | None:
    width, height = whole_number(facts.get("width")), whole_number(facts.get("height"))
    if width is None or height is None:
        return MALFORMED
    return None if min(width, height) >= check.min_side else f"{width} x {height} is too small to see"


STRICT_ANSWER_JUDGES: Mapping[str, Callable[[Any, str], str | None]] = {"answer_has": _answer_has}

STRICT_FILE_JUDGES: Mapping[str, Callable[[Any, Facts], str | None]] = {"picture_drawn": _picture_drawn}
