"""What is said of an engine on Ray that is not there yet; no Ray is needed for that."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner.engines.host import EngineSpec
from runner.engines.ray_host import RayEngineHost, Site

SITE = Site(n_gpus=2, n_cpus=3, host=None)


class FakeRay:
    """Says in which state a placement group is, or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self._answer = answer
        util = ModuleType("ray.util")
        util.placement_group_table = self._table  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
        monkeypatch.setitem(sys.modules, "ray.util", util)

    def _table(self, group: object) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"state": "PENDING"}, "no node of the Ray cluster has 2 GPUs and 3 CPUs free"),
        ({"state": "CREATED"}, "its node is not done yet: it gets ready what the engine needs"),
        (RuntimeError("the cluster is gone"), "or does not answer"),
        ({}, "or does not answer"),
    ],
    ids=["pending", "created", "gone", "removed"],
)
def test_what_an_engine_waits_for(monkeypatch: pytest.MonkeyPatch, answer: Any, says: str) -> None:
    """A node that is slow is not said to be dead, and a cluster that says nothing is no error of its own."""
    FakeRay(monkeypatch, answer)
    host = RayEngineHost(EngineSpec(("engine",), {}, 60.0), SITE, Path("engine.log"))
    host._group = object()
    assert says in host._describe_wait()
