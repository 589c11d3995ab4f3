"""What the content of one message says, as text and bytes that can be kept. Pure.

The content was written by a process that runs a model's code: nothing here raises, whatever it is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from sandbox_pool.clip import to_bytes

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


def printable(value: object, max_chars: int | None = None) -> str:
    """Return any value as text that UTF-8 can hold."""
    text = value if isinstance(value, str) else repr(value)
    return to_bytes(text[:max_chars]).decode()


def without_colours(text: str) -> str:
    """Return the text without terminal control sequences."""
    return _ANSI.sub("", text)


def limits_seen(ename: str, evalue: str) -> tuple[str, ...]:
    """Return which limit of the sandbox an exception speaks of, if any."""
    if ename in ("MemoryError", "_ArrayMemoryError"):
        return ("memory",)
    if re.match(r"\[Errno (27|28|122)\]", evalue):  # EFBIG, ENOSPC, EDQUOT
        return ("disk",)
    if re.match(r"\[Errno 12\]", evalue):
        return ("memory",)
    if ename == "BlockingIOError" and evalue.startswith("[Errno 11]"):
        return ("pids",)
    if ename == "RuntimeError" and "can't start new thread" in evalue:
        return ("pids",)
    return ()


def display_id(content: Mapping[str, Any]) -> str | None:
    """Return by which id a display can be replaced later, if it has one."""
    transient = content.get("transient")
    value = transient.get("display_id") if isinstance(transient, dict) else None
    return value if isinstance(value, str) else None


def as_json(value: object) -> str:
    """Return any JSON value as text that UTF-8 can hold."""
    try:
        return printable(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return "[unprintable]"


def picture_bytes(mime: str, value: object) -> bytes:
    """Return a picture's bytes: it comes as base64 in all formats but SVG."""
    text = "".join(map(printable, value)) if isinstance(value, list) else printable(value)
    if mime.startswith("image/svg"):
        return text.encode()
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return text.encode()
