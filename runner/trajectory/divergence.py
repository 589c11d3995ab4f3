"""Whether an action gave the same observation when it was executed again. Pure.

What varies by nature is made equal first: addresses, durations and rates, times of day, temporary names,
uuids, process numbers; pictures count as present, not by their bytes. Everything else must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

MAX_SHOWN_CHARS = 80

_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_DATE = r"\d{4}[-/]\d{2}[-/]\d{2}"
_TIME = r"\d{1,2}:\d{2}:\d{2}"
_UNIT = r"(?:ns|µs|us|μs|ms|s|sec|secs|seconds?|min|minutes?|h|hours?)"
_NORMALISED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), ""),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b0x[0-9a-f]{4,16}\b", re.I), "<address>"),
    (re.compile(r"(?<=\bid=)\d{9,}|(?<=\bpid=)\d+|(?<=\bpid )\d+", re.I), "<number>"),
    (re.compile(rf"(?:{_DATE}[ T])?\b{_TIME}(?:[.,]\d+)?(?:Z|[+-]\d{{2}}:?\d{{2}})?"), "<time>"),
    (re.compile(r"(?<=/)tmp[a-z0-9_]{6,12}\b"), "<temporary>"),
    (re.compile(rf"\b{_NUMBER}\s?{_UNIT}\b(?:\s?(?:±|\+/-|\+-)\s?{_NUMBER}\s?{_UNIT}\b)?"), "<duration>"),
    (re.compile(rf"\b{_NUMBER}\s?(?:it|B|kB|KB|MB|GB|KiB|MiB|rows?|items?)/s\b|\b{_NUMBER}s/it\b"), "<rate>"),
    (re.compile(r"\b\d+ loops? each\b"), "<loops>"),
    (re.compile(r"\b\d{1,2}:\d{2}(?=[<,\]])"), "<time>"),  # of a progress bar
)  # fmt: skip


def first_difference(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return where two observation records differ, in words; None when they agree."""
    for key in ("status", "kernel_alive"):
        if recorded.get(key) != now.get(key):
            return f"{key}: {recorded.get(key)!s} before, {now.get(key)!s} now"
    if _is_cut(recorded) or _is_cut(now):
        return None  # where the cut fell, and what was printed until then, is timing
    pairs = zip_longest(_parts(recorded), _parts(now), fillvalue=("nothing", ""))
    for number, (before, after) in enumerate(pairs, start=1):
        if before[0] != after[0]:
            return f"output {number}: {before[0]} before, {after[0]} now"
        difference = _text_difference(before[1], after[1])
        if difference is not None:
            return f"output {number} ({before[0]}), {difference}"
    return None


def normalised(text: str) -> str:
    """Return a text with what varies by nature made equal."""
    for pattern, replacement in _NORMALISED:
        text = pattern.sub(replacement, text)
    return text


def _is_cut(record: Mapping[str, Any]) -> bool:
    return record.get("status") in ("timeout", "interrupted") or bool(record.get("truncated"))


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each output; streams of one name that follow each other are one."""
    name = ""
    texts: list[str] = []
    for output in record.get("outputs") or ():
        kind = output.get("type")
        if kind == "stream":
            if name and name != output.get("name"):
                yield name, "".join(texts)
                texts = []
            name = str(output.get("name"))
            texts.append(str(output.get("text", "")))
            continue
        if name:
            yield name, "".join(texts)
            name, texts = "", []
        yield from _rich_parts(str(kind), output)
    if name:
        yield name, "".join(texts)


def _rich_parts(kind: str, output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if kind == "error":
        yield kind, f"{output.get('ename')}: {output.get('evalue')}"
        return
    data = output.get("data") or {}
    for mime in sorted(data):
        value = data[mime]
        is_picture = not isinstance(value, str) or mime.startswith("image/")
        yield f"{kind} {mime}", "" if is_picture else value


def _text_difference(before: str, after: str) -> str | None:
    if before == after:
        return None
    lines = zip_longest(_lines(before), _lines(after), fillvalue="")
    for number, (old, new) in enumerate(lines, start=1):
        if old != new and (old := normalised(old)) != (new := normalised(new)):
            return f"line {number}: {_shown(old)} before, {_shown(new)} now"
    return None


def _lines(text: str) -> list[str]:
    """Return the lines as they end up: a progress bar writes one many times."""
    return [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").rstrip().split("\n")]


def _shown(line: str) -> str:
    return repr(line if len(line) <= MAX_SHOWN_CHARS else line[:MAX_SHOWN_CHARS] + "...")
