"""Jupyter messages as frames: signed on the way out, checked and parsed on the way in. Pure.

What arrives was written by a process that runs a model's code, which can read the key from its own
memory: a good signature proves nothing about the content. Reading raises BadMessage on anything that
is no message, and on nothing else.

Protocol: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

_DELIMITER = b"<IDS|MSG>"


class BadMessage(ValueError):  # noqa: N818 - never leaves the package
    """Frames that are no signed Jupyter message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a kernel, its content not parsed yet."""

    type: str
    parent_id: str
    """`msg_id` of the request that it answers, or empty."""

    raw_content: bytes

    def content(self) -> Mapping[str, Any]:
        """Return the content. Raises BadMessage when it is no JSON object."""
        return _parse(self.raw_content)


def sign(key: bytes, parts: Sequence[bytes]) -> bytes:
    """Return the signature of header, parent header, metadata and content."""
    code = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        code.update(part)
    return code.hexdigest().encode()


def encode(key: bytes, kind: str, content: Mapping[str, Any]) -> tuple[str, list[bytes]]:
    """Return the id and the frames of a new request. Ids are random, so that no cell can foresee one."""
    msg_id = uuid.uuid4().hex
    header = {
        "msg_id": msg_id,
        "msg_type": kind,
        "session": "kernelfleet",
        "username": "",
        "date": datetime.now(UTC).isoformat(),
        "version": "5.4",
    }
    parts = [orjson.dumps(header), b"{}", b"{}", orjson.dumps(content)]
    return msg_id, [_DELIMITER, sign(key, parts), *parts]


def decode(key: bytes, frames: Sequence[bytes]) -> Message:
    """Return the message that the frames hold. Raises BadMessage when they hold none signed by `key`."""
    try:
        start = frames.index(_DELIMITER)
    except ValueError:
        raise BadMessage("no delimiter") from None
    parts = frames[start + 1 : start + 6]
    if len(parts) < 5:
        raise BadMessage(f"{len(parts)} frames of 5")
    signature, header, parent, metadata, content = parts
    if not hmac.compare_digest(signature, sign(key, (header, parent, metadata, content))):
        raise BadMessage("wrong signature")
    kind = _parse(header).get("msg_type")
    parent_id = _parse(parent).get("msg_id", "")
    if not isinstance(kind, str) or not isinstance(parent_id, str):
        raise BadMessage("msg_type or msg_id is no string")
    return Message(kind, parent_id, content)


def _parse(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError:
        value = _parse_as_python(data)
    if not isinstance(value, dict):
        raise BadMessage("no JSON object")
    return value


def _parse_as_python(data: bytes) -> Any:
    """Read NaN and lone surrogates too, which Python's own encoder writes."""
    collects = gc.isenabled()
    gc.disable()  # finalizers that it would run where the nesting is deepest fail for want of stack
    try:
        return json.loads(data.decode("utf-8", "backslashreplace"))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no JSON: {error}") from None
    finally:
        if collects:
            gc.enable()
