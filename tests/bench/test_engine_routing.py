"""The measurements of routing measure what they say, on a small scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.engine_routing import N_TURNS, markdown, measure_loss, measure_prefill, measure_throughput

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["uvloop"])]


async def test_sticking_computes_less_than_chance(tmp_path: Path) -> None:
    """Nearly half of what is computed otherwise, and hits as with a single engine."""
    figures = await measure_prefill(tmp_path, 1, n_trajectories=6)
    for n_turns in N_TURNS:
        assert 0.3 < figures[f"sticky / random prefill, {n_turns} turns"][0] < 0.8
        assert figures[f"sticky / single hit rate, {n_turns} turns"][0] > 0.9


async def test_both_loops_reach_the_engine(tmp_path: Path) -> None:
    """Neither is faster than the engine, and neither much slower."""
    figures = await measure_throughput(tmp_path, 1, 32, warm_up_s=0.5, window_s=1.0)
    assert 20 < figures["bare req/s"][0] < 400
    assert 20 < figures["ours req/s"][0] < 400


async def test_turns_of_a_lost_engine_are_sent_again(tmp_path: Path) -> None:
    """Soon."""
    assert 0.0 < await measure_loss(tmp_path, "core500", n_trajectories=8) < 5.0


async def test_table_has_targets() -> None:
    """A row per figure, with what it should be."""
    assert markdown({"redone s, exit": [0.5, 0.7, 0.6]}).splitlines()[-1] == (
        "| redone s, exit | 0.6 | 0.5 to 0.7 | 2.0 |"
    )
