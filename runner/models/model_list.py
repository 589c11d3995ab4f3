"""What a server's list of models says. Pure; never trusts the shape of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from runner.errors import ConfigError
from runner.models.endpoint import Answer
from runner.models.wire import refusal_text


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as one server lists it."""

    name: str
    is_vllm: bool = False
    """Whether the server is vLLM, whatever it serves."""

    roots: frozenset[str] = frozenset()
    """Where vLLM has loaded it from."""

    max_model_len: int | None = None
    """Its window in tokens, prompt and reply together."""


def read_model_list(answer: Answer, url: str, name: str | None, api_key_env: str | None) -> Listed:
    """Return the model `name` of a server, or for None the only one.

    Raises:
        ConfigError: the server refuses us or is elsewhere, or `name` is None and it lists no model, or
            several.
    """
    status = answer.status
    if status in (401, 403):
        raise ConfigError(
            f"{url} refuses us ({refusal_text(status, answer.body)}): export the API key and name "
            f"its variable in model.api_key_env (now: {api_key_env})"
        )
    if status == 404 and not url.endswith("/v1"):
        raise ConfigError(f"{url}/models is not there (HTTP 404): most addresses end in /v1")
    rows = _rows(answer.body) if status == 200 else None
    if name is None:
        if rows is None:
            raise ConfigError(
                f"model.name is not set, and {url}/models gives no list of models "
                f"({refusal_text(status, answer.body)}); check the address, or set model.name"
            )
        names = [row["id"] for row in rows]
        if len(names) != 1:
            raise ConfigError(
                f"model.name is not set, and {url}/models lists "
                f"{', '.join(names) or 'no model'}; set model.name"
            )
        name = str(names[0])
    return _listed(name, rows or [])


def lists_model(answer: Answer, name: str) -> bool:
    """Whether a server's list holds a model, or is no list."""
    rows = _rows(answer.body)
    return not rows or name in [row["id"] for row in rows]


def _listed(name: str, rows: list[dict[str, Any]]) -> Listed:
    asked = [row for row in rows if row["id"] == name]
    # An adapter's row has no window of its own.
    parents = [row["parent"] for row in asked if row.get("parent") is not None]
    windows = [
        n
        for row in rows
        if row["id"] == name or row["id"] in parents
        if isinstance(n := row.get("max_model_len"), int) and n > 0
    ]
    return Listed(
        name,
        is_vllm=any(_is_vllm(row) for row in rows),
        roots=frozenset(str(row["root"]) for row in asked if _is_vllm(row) and row.get("root")),
        max_model_len=min(windows, default=None),
    )


def _is_vllm(row: dict[str, Any]) -> bool:
    return row.get("owned_by") == "vllm"


def _rows(body: bytes) -> list[dict[str, Any]] | None:
    try:
        return [row for row in orjson.loads(body)["data"] if isinstance(row.get("id"), str)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
