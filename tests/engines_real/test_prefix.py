"""Sticking to an engine is what fills its prefix cache with what is asked next: by vLLM's own metrics."""

from __future__ import annotations

import logging

import pytest

from tests.bench.conversations import prefill_ratios
from tests.engines_real.serving import BOOT_LIMIT_S, NAME

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2 * BOOT_LIMIT_S)]

logger = logging.getLogger(__name__)

CODE = r"```python\nprint\([0-9]{1,6}\)\n```"
N_TURNS = 6


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_sticking_computes_less_than_chance(pair: list[str]) -> None:
    """On two engines; and prompts hit as often as with one engine for all."""
    ratios = await prefill_ratios(
        pair, "test", 10, N_TURNS, name=NAME, send_seed=False,
        request={"max_tokens": 64, "structured_outputs": {"regex": CODE}},
    )  # fmt: skip
    logger.info("%s", ratios)
    assert 0.2 < ratios[f"sticky / random prefill, {N_TURNS} turns"] < 0.7
    assert ratios[f"sticky / single hit rate, {N_TURNS} turns"] > 0.9
