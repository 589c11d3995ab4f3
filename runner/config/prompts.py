"""The `prompts:` section: a config file of PyBench's own, below all other settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from runner.config.base import ConfigModel
from runner.config.nested import flatten, lay_over
from runner.upstream_prompts import read_upstream
from runner.yaml_file import parse_mapping, read_bytes


class PromptsFile(ConfigModel):
    """A config file of PyBench's own, below all other settings. In YAML a bare string stands for `path`."""

    path: Path
    sha256: str = ""
    """Of the file; filled in."""

    given: tuple[str, ...] = ()
    """The settings whose values come from it; filled in."""

    outvoted: tuple[str, ...] = ()
    """The settings for which it has another value than the config or the command line, whose value is used;
    filled in."""

    unused: tuple[str, ...] = ()
    """Its keys whose values are not used, such as credentials; filled in."""


def with_prompts(data: dict[str, Any]) -> dict[str, Any]:
    """Lay what the file of `prompts` says below the other settings. Raises ConfigError."""
    prompts = data.get("prompts")
    prompts = prompts.model_dump() if isinstance(prompts, PromptsFile) else prompts
    if not isinstance(prompts, Mapping) or not isinstance(path := prompts.get("path"), str | Path):
        return data
    content = read_bytes(Path(path), "prompts")
    upstream = read_upstream(parse_mapping(content, f"prompts {path}"), f"prompts {path}")
    sections = {key: _as_mapping(data[key]) for key in upstream.settings if key in data}
    said, values = flatten(sections), flatten(upstream.settings)
    read = {
        "path": Path(path).absolute(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "given": tuple(key for key in values if key not in said),
        "outvoted": tuple(key for key, value in values.items() if said.get(key, value) != value),
        "unused": upstream.unused,
    }
    return {**data, **lay_over(upstream.settings, sections), "prompts": {**prompts, **read}}


def _as_mapping(section: Any) -> Any:
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else section
