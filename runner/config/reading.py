"""From a config file and `--set` to a checked RunConfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from runner.config.nested import flatten
from runner.config.problems import first_problem
from runner.config.run import SHORT_FOR, RunConfig
from runner.errors import ConfigError
from runner.yaml_file import parse_mapping, parse_yaml, read_bytes


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Read a config file (None: all defaults), lay overrides (`a.b` -> value) over it, check it.

    Raises:
        ConfigError: names the file, the line or the key, the value and what is allowed.
    """
    data = read_settings(path, overrides)
    where = f"{path}: " if path else ""
    if "matrix" in data:
        raise ConfigError(f"{where}it holds a matrix: run it with python -m runner sweep {path}")
    return check_config(data, where)


def check_config(data: Mapping[str, Any], where: str = "") -> RunConfig:
    """Return the config that a mapping describes. Raises ConfigError, whose message begins with `where`."""
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(where + first_problem(error)) from error
    for key, value in flatten(config.model_dump(mode="json")).items():
        try:
            orjson.dumps(value)
        except TypeError as error:
            raise ConfigError(f"{where}{key}: {value!r} cannot be sent or recorded: {error}") from error
    return config


def read_settings(path: Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Read a config file and lay overrides over it, unchecked. Raises ConfigError."""
    what = f"config file {path}"
    data = parse_mapping(read_bytes(path, "config file"), what) if path else {}
    for key, value in overrides.items():
        set_key(data, key, value)
    return data


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `key.path=value`; the value is read as YAML 1.2. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: write key.path=value, for example --set limits.max_turns=5")
    return key, parse_yaml(value, source=f"--set {key}")


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` in nested mappings. Raises ConfigError where something else is in the way."""
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        child = data.get(part)
        if depth == 0 and part in SHORT_FOR and isinstance(child, str):
            child = {SHORT_FOR[part]: child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {'.'.join(parts[: depth + 1])} is {child!r}, not a mapping")
        data[part] = child
        data = child
    data[parts[-1]] = value
