"""What is wrong with a config, in one line: the key, the value, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from runner.config.nested import flatten
from runner.config.run import RunConfig
from runner.errors import ConfigError
from sandbox_pool.config import Profile


def first_problem(error: ValidationError) -> str:
    """Return the first of what pydantic found, as a user reads it."""
    first, *others = error.errors()
    if isinstance(cause := first.get("ctx", {}).get("error"), ConfigError):
        return str(cause)
    location, problem = first["loc"], first["msg"].removeprefix("Value error, ")
    if str(location[-1]).startswith("literal["):  # a word or something else: each is refused by itself
        location = location[:-1]
        also = [other for other in others if other["loc"][:-1] == location]
        others = [other for other in others if other not in also]
        problem = ", or ".join([problem, *(other["msg"].removeprefix("Input should be ") for other in also)])
    key = ".".join(str(part) for part in location)
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{_meant(location)}{_known_keys(location)}{more}"
    return f"{key}: {problem}, got {first['input']!r}{more}"


def _meant(location: Sequence[int | str]) -> str:
    """Say which section has a key that was looked for at the top."""
    keys = flatten(RunConfig().model_dump()) if len(location) == 1 else ()
    meant = [key for key in keys if location[0] in (key.replace(".", "_"), key.rpartition(".")[2])]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _known_keys(location: Sequence[int | str]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        found = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        model = found.annotation if found else None
    if location[:2] == ("sandbox", "profiles"):  # their values are checked by the pool's config itself
        model = Profile
    fields = getattr(model, "model_fields", None)
    return f"; known here: {', '.join(fields)}" if fields else ""
