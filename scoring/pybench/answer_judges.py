"""Judges final replies by PyBench's strict checks. Pure; never raises on any text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scoring.compare import show
from scoring.pybench import strict_checks as checks

MAX_ANSWER_CHARS = 100_000
MAX_WINDOW_CHARS = 400
"""How far behind its label a number may be."""

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?)"
    r"(?:\s*/\s*([0-9]+(?:\.[0-9]+)?))?\s*(%)?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BRACKETS = re.compile(r"\(\s*(-?[0-9.]+)\s*\)")
_STARS = re.compile(r"(?<=[\w)])(?:\*\*(?=[\w(-])|\s+\*\*\s+(?=[\w(-]))")
_POWER = re.compile(r"\^\s*[({]\s*(-?[0-9]+)\s*[)}]")
_BULLET = re.compile(r"^\s*[-*+]\s+", re.MULTILINE)
_AROUND_OPERATORS = re.compile(r"\s*([-+*/^()=])\s*")
_CONCLUSION = re.compile(r"(?:finished|answer|最终答案|结论)\W{0,4}[:\uff1a]", re.IGNORECASE)
_LATEX = {"{,}": ",", r"\,": "", r"\%": "%", r"\(": " ", r"\)": " ", r"\[": " ", r"\]": " "}
_LATEX |= {r"\left": "", r"\right": "", r"\cdot": "*", r"\times": "*", "\N{MINUS SIGN}": "-", "$": " "}
_POWERS = str.maketrans({"\N{SUPERSCRIPT TWO}": "^2", "\N{SUPERSCRIPT THREE}": "^3"})


def plain(answer: str) -> str:
    """Return a reply with LaTeX, full-width characters and fractions written plainly."""
    text = unicodedata.normalize("NFKC", answer[-MAX_ANSWER_CHARS:].translate(_POWERS))
    for found, put in _LATEX.items():
        text = text.replace(found, put)
    text = _POWER.sub(r"^\1", _STARS.sub("^", text).replace("**", ""))
    return _BRACKETS.sub(r"\1", _FRACTION.sub(r"(\1)/(\2)", text))


def has_word(word: str, text: str) -> bool:
    """Tell whether a text has a word, whole and without case."""
    return next(_places([word], text), None) is not None


def _places(words: Sequence[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield where a text has one of several words: start and end."""
    for word in words:
        # Chinese has no spaces between words.
        start = r"(?<![a-z0-9_])" if word[0].isascii() else ""
        end = r"(?![a-z0-9_])" if word[-1].isascii() else ""
        for found in re.finditer(start + re.escape(word) + end, text, re.IGNORECASE):
            yield found.span()


def _has(check: checks.AnswerHas, answer: str) -> str | None:
    text = answer[-MAX_ANSWER_CHARS:]
    missing = [words for words in check.all_of if not any(has_word(word, text) for word in words)]
    n_found = len(check.all_of) - len(missing)
    if not missing or (check.min_lists is not None and n_found >= check.min_lists):
        return None
    return f"the answer has none of {show(missing[0])} ({n_found} of {len(check.all_of)} found)"


def _first(check: checks.AnswerFirst, answer: str) -> str | None:
    text = answer[-MAX_ANSWER_CHARS:]
    right = min((start for start, _ in _places(check.accept, text)), default=None)
    wrong = min((start for start, _ in _places(check.others, text)), default=len(text))
    if right is None:
        return f"the answer has none of {show(check.accept)}"
    return None if right <= wrong else f"the answer names something else before {show(check.accept)}"


def _choice(check: checks.AnswerChoice, answer: str) -> str | None:
    text = answer[-MAX_ANSWER_CHARS:]
    ends = [found.end() for found in _CONCLUSION.finditer(text)]
    conclusion = text[ends[-1] :] if ends else text
    lines = [line for line in conclusion.splitlines() if line.strip()]
    for part in (conclusion, *lines[-1:]):
        n_named = sum(any(has_word(word, part) for word in words) for words in check.options)
        if n_named == 1:
            return None
    return f"the conclusion names none or several of {show(check.options)}"


def _states(check: checks.AnswerStates, answer: str) -> str | None:
    text = answer[-MAX_ANSWER_CHARS:]
    if any(re.search(pattern, text, re.IGNORECASE) for pattern in check.none_of):
        return "the answer states what is wrong"
    if any(re.search(pattern, text, re.IGNORECASE) for pattern in check.any_of):
        return None
    return "the answer does not state what is right"


def _formula(check: checks.AnswerFormula, answer: str) -> str | None:
    text = _tight(answer)
    for formula in check.any_of:
        whole = rf"(?<![-+*/^.()0-9]){re.escape(_tight(formula))}(?![-+*/^0-9])"
        if re.search(whole, text, re.IGNORECASE):
            return None
    return f"the answer has no {' or '.join(check.any_of)}"


def _tight(text: str) -> str:
    return _AROUND_OPERATORS.sub(r"\1", _BULLET.sub("", plain(text)))


def _figures(check: checks.AnswerFigures, answer: str) -> str | None:
    text = plain(answer)
    missing = [_missing(figures, text) for figures in check.any_of]
    if None in missing:
        return None
    figure = missing[0]
    assert figure is not None
    label = f" behind {' '.join(words[0] for words in figure.after)}" if figure.after else ""
    return f"the answer has no {', '.join(f'{value:.12g}' for value in figure.values)}{label}"


def _missing(figures: Sequence[checks.Figure], text: str) -> checks.Figure | None:
    return next((f for f in figures if not _is_told(f, text, [o.after for o in figures])), None)


def _is_told(figure: checks.Figure, text: str, labels: Sequence[Sequence[Sequence[str]]]) -> bool:
    windows = [text]
    for level, words in enumerate(figure.after):
        others = [w for path in labels if len(path) > level for w in path[level] if w not in words]
        windows = [part for window in windows for part in _behind(words, others, window)]
    return any(_has_in_order(figure, window) for window in windows)


def _behind(words: Sequence[str], others: Sequence[str], text: str) -> Iterator[str]:
    """Yield what follows each place of a label, up to the next one of another label."""
    ends = [start for start, _ in _places(others, text)]
    for _, end in _places(words, text):
        yield text[end : min([end + MAX_WINDOW_CHARS, *(start for start in ends if start >= end)])]


def _has_in_order(figure: checks.Figure, text: str) -> bool:
    rest = iter(_numbers(text, is_share=figure.is_share))
    return all(
        any(abs(found - value) <= figure.tol for found in _next_of(rest, value, figure.tol))
        for value in figure.values
    )


def _next_of(rest: Iterator[Sequence[float]], value: float, tol: float) -> Sequence[float]:
    """Return the next number's readings that hold the value; empty where there is none."""
    return next((found for found in rest if any(abs(each - value) <= tol for each in found)), ())


def _numbers(text: str, *, is_share: bool) -> Iterator[Sequence[float]]:
    """Yield the readings of each number: itself, as a fraction, as a share."""
    for found in _NUMBER.finditer(text):
        number = float(found[1].replace(",", ""))
        readings = [number]
        if found[2] is not None:
            divisor = float(found[2])
            readings += [divisor, *([number / divisor] if divisor else [])]
        if is_share and found[3] is not None:
            readings = [each / 100 for each in readings]
        yield readings


STRICT_ANSWER_JUDGES: Mapping[str, Callable[[Any, str], str | None]] = {
    "answer_has": _has,
    "answer_first": _first,
    "answer_choice": _choice,
    "answer_states": _states,
    "answer_formula": _formula,
    "answer_figures": _figures,
}
"""By the kind of the check."""
