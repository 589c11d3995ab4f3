"""Arenas for the hostile cases: one for each kind of sandbox, kept for the cases of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.sandbox_pool.hostile.arena import Arena
from tests.sandbox_pool.hostile.bait import Bait
from tests.sandbox_pool.hostile.setups import Setup, why_not


@pytest.fixture(name="bait", scope="module")
def _bait() -> Iterator[Bait]:
    """Things of this machine that no sandbox may touch; planted before any of our processes starts."""
    with Bait() as bait:
        yield bait


@pytest_asyncio.fixture(name="arena", scope="module", loop_scope="module")
async def _arena(request: pytest.FixtureRequest, bait: Bait) -> AsyncIterator[Arena]:
    """A pool of the kind of sandboxes that the test is parametrised with."""
    setup: Setup = request.param
    reason = why_not(setup.tier)
    if reason is not None:
        pytest.skip(reason)
    async with Arena.opened(setup, bait) as arena:
        yield arena
