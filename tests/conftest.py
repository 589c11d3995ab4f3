"""What all tests share: both event loops, and the benchmarks' data where it is."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on asyncio's loop and on uvloop; those with real kernels on uvloop alone."""
    if item.get_closest_marker("kernel"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _loud_log() -> Iterator[None]:
    """Undo what a command did to the root logger: with --quiet it drops the warnings that tests look for."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(name="kernelfleet_data", scope="session")
def _kernelfleet_data() -> Path:
    """The folder that holds pybench/, codeact/, ...; skips where KERNELFLEET_DATA is unset."""
    root = os.environ.get("KERNELFLEET_DATA")
    if not root:
        pytest.skip("KERNELFLEET_DATA is not set: the benchmarks' own data is not part of this project")
    return Path(root)
