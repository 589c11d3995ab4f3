"""What every section of the config is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """Strict: an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
