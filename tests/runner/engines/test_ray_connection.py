"""What is said where Ray is not installed."""

from __future__ import annotations

import sys

import pytest

from runner.engines.ray_connection import connect
from runner.errors import ConfigError


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target that installs it, and the settings that need none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ConfigError,
        match=r"Ray is not installed here .*make install-engines.*engines\.kind: local, cluster\.kind: none",
    ):
        connect("127.0.0.1:6379")
