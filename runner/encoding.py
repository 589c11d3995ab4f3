r"""One JSON line from any content whatsoever. Pure.

orjson refuses what models and kernels do produce: lone surrogates, integers beyond 64 bits, deep
nesting. The line is encoded as it is first, and only when that fails made encodable: surrogates become
`\udXXX` in text, such integers and everything unknown become text, NaN and infinities null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

OPTIONS = orjson.OPT_NON_STR_KEYS
MAX_DEPTH = 100
"""orjson gives up at 254 levels; what lies deeper than this becomes text."""


def encode_line(record: Any) -> bytes:
    """Return the record (a dataclass or mapping) as one line of JSON with its newline. Never raises."""
    return encode(record, OPTIONS | orjson.OPT_APPEND_NEWLINE)


def encode_joined(record: Any, **encoded: bytes) -> bytes:
    """Return the record (a dataclass) as `encode_line` does, with some of its fields encoded already."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return encode_line(fields | {name: orjson.Fragment(value) for name, value in encoded.items()})


def array(items: Sequence[bytes]) -> bytes:
    """Return encoded values as one JSON array."""
    return b"[" + b",".join(items) + b"]"


def encode(value: Any, options: int = OPTIONS) -> bytes:
    """Return a value as JSON. Never raises."""
    try:
        return orjson.dumps(value, option=options)
    except (orjson.JSONEncodeError, RecursionError):
        return orjson.dumps(encodable(value), option=options)


def encodable(value: Any, depth: int = 0) -> Any:
    """Return a value like this one that orjson encodes without error."""
    if value is None or isinstance(value, bool | float | orjson.Fragment):
        return value
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else _safe_text(value)
    if depth >= MAX_DEPTH:
        return _safe_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return encodable(fields, depth)
    if isinstance(value, Mapping):
        return {_key(key): encodable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encodable(item, depth + 1) for item in value]
    return _safe_text(value)


def _key(key: Any) -> str:
    return encodable(key) if isinstance(key, str) else _safe_text(key)


def _safe_text(value: Any) -> str:
    """Return the text of anything, at most 10,000 characters of it."""
    try:
        # Python refuses to write integers of over 4300 digits in decimal.
        text = hex(value) if isinstance(value, int) and value.bit_length() > 14_000 else str(value)
    except Exception as error:  # noqa: BLE001 - a __str__ of somebody else's may raise anything
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text[:10_000].encode("utf-8", "backslashreplace").decode("utf-8")
