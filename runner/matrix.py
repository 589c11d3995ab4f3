"""A config with a `matrix:` is a sweep: one run for each combination of its values.

    matrix:
      models: [openai:http://gpu1:8000/v1, {client: "openai:http://gpu2:8000/v1", name: big}]
      protocols: [fenced, tool_call]
      temperatures: [0.0, 0.8]
      epochs: [1]
      limits.max_turns: [5, 10]      # any key of the config

Each cell has a run directory of its own below the sweep's, named for its values, so that the same
command goes on with all of them.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from runner.config import RunConfig, check_config, read_settings, set_key
from runner.config.nested import lay_over
from runner.config.run import SHORT_FOR
from runner.errors import ConfigError

ALIASES = {
    "models": "model",
    "protocols": "protocol",
    "temperatures": "model.request.temperature",
    "epochs": "epochs",
}
"""Short names of what is swept most, and the keys that they stand for."""

MAX_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the matrix."""

    name: str
    values: Mapping[str, Any]
    """By the key of the config."""

    config: RunConfig


def read_sweep(path: Path, overrides: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of a sweep, in the order of the matrix, the last key changing fastest.

    Raises:
        ConfigError: names the file, the key, the value and what is allowed.
    """
    data = read_settings(path, overrides)
    axes = _axes(path, data.pop("matrix", None))
    root = Path(data.pop("run_dir", None) or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{path.stem}")
    cells = []
    for values in product(*axes.values()):
        settings = copy.deepcopy(data)
        named = dict(zip(axes, values, strict=True))
        for key, value in named.items():
            set_key(settings, key, _section(settings, key, value))
        name = cell_name(named)
        settings["run_dir"] = root / name
        cells.append(Cell(name, named, check_config(settings, f"{path}, cell {name}: ")))
    names = [cell.name for cell in cells]
    for cell in cells:
        if names.count(cell.name) > 1:
            raise ConfigError(f"{path}: matrix: two cells are the same: {cell.name}; name each value once")
    return cells


def _section(settings: Mapping[str, Any], key: str, value: Any) -> Any:
    """Return what a cell has of a section: its value of the matrix, over what the config says besides."""
    below, above = (
        {SHORT_FOR[key]: part} if key in SHORT_FOR and isinstance(part, str) else part
        for part in (settings.get(key), value)
    )
    return lay_over(below, above) if isinstance(below, Mapping) and isinstance(above, Mapping) else value


def _axes(path: Path, matrix: Any) -> dict[str, list[Any]]:
    if not isinstance(matrix, dict) or not matrix:
        raise ConfigError(f"{path}: a sweep needs a matrix: {{models: [...], protocols: [...], ...}}")
    axes = {}
    for key, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: matrix.{key}: give a list of values, not {values!r}")
        axes[ALIASES.get(str(key), str(key))] = values
    n_cells = 1
    for values in axes.values():
        n_cells *= len(values)
    if n_cells > MAX_CELLS:
        raise ConfigError(f"{path}: matrix: {n_cells} cells are more than {MAX_CELLS}; split the sweep")
    return axes


def cell_name(values: Mapping[str, Any]) -> str:
    """Return the name of a cell's folder: readable, and different for different values."""
    parts = [f"{key.rpartition('.')[2]}={_short(value)}" for key, value in values.items()]
    readable = "".join(c if c.isalnum() or c in "._-=," else "-" for c in ",".join(parts))
    digest = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:6]
    return f"{readable[:80]}-{digest}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("client") or value.get("kind") or "-"
    return str(value).replace("http://", "").replace("https://", "")
