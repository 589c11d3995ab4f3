"""What of a config is written to the run directory: all but secrets."""

from __future__ import annotations

import re
from typing import Any

from runner.config.run import RunConfig

NOT_RECORDED = "(not recorded)"


def public_config(config: RunConfig) -> dict[str, Any]:
    """Return the config as JSON for the run directory, without the values of headers and URLs' passwords."""
    data = config.model_dump(mode="json")
    model = data["model"]
    model["client"] = re.sub(r"://[^/?#,\s]*@", "://", model["client"])
    model["headers"] = dict.fromkeys(model["headers"], NOT_RECORDED)
    data["engines"]["env"] = dict.fromkeys(data["engines"]["env"], NOT_RECORDED)
    if isinstance(headers := model["request"].get("extra_headers"), dict):
        model["request"]["extra_headers"] = dict.fromkeys(headers, NOT_RECORDED)
    return data
