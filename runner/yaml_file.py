"""Reading YAML 1.2: `1e-5` is a number, `no` is a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from runner.errors import ConfigError


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML 1.2 document. Raises ConfigError that names the source and the line."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        # Of a duplicate key ruamel shows both values: one may be a secret.
        raise ConfigError(f"{source}{line}: {problem.partition(' with value ')[0]}") from error


def parse_mapping(content: bytes, source: str) -> dict[str, Any]:
    """Return what a YAML file holds at its top level; an empty file holds nothing.

    Raises:
        ConfigError: it is not UTF-8, not YAML, or not a mapping; names the source.
    """
    try:
        data = parse_yaml(content.decode("utf-8"), source)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 at byte {error.start}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: the top level must be a mapping, found {type(data).__name__}")
    return data


def read_bytes(path: Path, what: str) -> bytes:
    """Return the content of a file. Raises ConfigError that says `what` it is."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror or error}") from error
