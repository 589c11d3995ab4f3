"""The measurement of servers beside one another reaches each of them, on a small scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engines import open_engines
from tests.bench.engine_routing import config
from tests.bench.servers_beside import measure

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["uvloop"])]


async def test_ratios_are_to_the_first(tmp_path: Path) -> None:
    """The slower server of two is the one with few seats; a repetition is a value of each figure."""
    async with (
        await open_engines(config(tmp_path / "fast", 1, token_s=1e-3), tmp_path / "fast/logs") as fast,
        await open_engines(
            config(tmp_path / "slow", 1, token_s=1e-2, max_num_seqs=2), tmp_path / "slow/logs"
        ) as slow,
    ):
        urls = {"fast": fast.endpoints()[0].url, "slow": slow.endpoints()[0].url}
        figures = await measure(urls, "m", 8, 4, 2, warm_up_s=0.3, window_s=1.0)

    assert figures.keys() == {"fast req/s", "slow req/s", "slow / fast"}
    assert all(len(values) == 2 and min(values) > 0 for values in figures.values())
    assert figures["slow / fast"][0] == figures["slow req/s"][0] / figures["fast req/s"][0] < 1
